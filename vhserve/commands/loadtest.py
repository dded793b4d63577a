"""`vhserve loadtest`: the flags beside those of the workload, and what is printed at the end.

What they do is in `vhserve.loadtest`.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from vhserve.loadtest.workload import Workload


class Loadtest(Workload):
    """Load an OpenAI-compatible endpoint with pictures and text, and time every token; or two, in turns.

    Requests arrive at random (Poisson) at --rate, whatever became of earlier ones, and latencies count from when each
    was due; --concurrency instead keeps a number of streams busy. Replies have a fixed length, pictures are new to
    every cache. --compare URL_A URL_B gives both endpoints the same requests, in the order A B, B A, and prints the
    ratios. Exit code 1: a --fail-if condition holds, or nothing succeeded.
    """

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
    json_: bool = Field(False, alias="json", description="print the figures as JSON instead of tables")

    def cli_cmd(self) -> None:
        """Check everything that can be wrong, send, then write and print."""
        from rich.console import Console

        from vhserve.loadtest.run import loadtest
        from vhserve.loadtest.tables import print_tables, print_warnings

        document = loadtest(self).document
        if self.json_:
            print(document.model_dump_json(indent=1))
        else:
            print_tables(document, Console())
        print_warnings(document, Console(stderr=True, soft_wrap=True, highlight=False, markup=False))
        nothing = any(not one.figures.succeeded for one in document.endpoints)
        if nothing or any(one.violated for one in document.conditions):
            raise SystemExit(1)
