"""The options of a load test: the workload's, and those that the processes which send need not know.

Its fields are the flags of `vhserve loadtest` and their defaults. Knows pydantic alone; does not know what is done with
them.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from vhserve.loadtest.workload import Workload


class LoadtestOptions(Workload):
    """The workload, the endpoints, and what is judged and written; each field's description is the flag's help text."""

    urls: CliPositionalArg[list[str]] = Field(
        ["http://127.0.0.1:8000/v1"], description="address of the endpoint, with its /v1; two of them with --compare"
    )
    compare: bool = Field(False, description="compare two endpoints")
    rounds: int = Field(2, gt=0, le=100, description="turns of each endpoint, with --compare")
    concurrency: int | None = Field(
        None, gt=0, le=10_000, description="closed loop: streams at a time, each sends when its last reply has ended"
    )
    clients: int = Field(1, gt=0, le=64, description="processes that share the sending")
    slo: str | None = Field(
        None, description="limits in seconds that make a request good, such as ttft<0.5,tpot<0.05; of ttft, tpot, e2e"
    )
    fail_if: list[str] = Field(
        [], description="conditions that end with exit code 1, comma-separated, such as p99_ttft>0.5,error_share>0"
    )
    out: Path | None = Field(None, description="write all figures to this JSON file")
    csv: Path | None = Field(None, description="write every request to this CSV file")
    html: Path | None = Field(None, description="write the report with its plots to this HTML file")
