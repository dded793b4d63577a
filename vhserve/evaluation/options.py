"""The options of an evaluation: one model, whose fields are the flags of `vhserve evaluate` and their defaults.

Knows pydantic and the types that options share. Does not know what is done with them.
"""

from pathlib import Path

from pydantic import BaseModel, Field

from vhserve import option_types as words
from vhserve.option_types import Samples, Seconds, Seed


class EvaluationOptions(BaseModel):
    """Which servers to ask, which samples, how, and where to write; descriptions of fields are the flags' help."""

    base_url: str = Field("http://127.0.0.1:8000/v1", description="address of the server, with its /v1")
    compare: str | None = Field(None, description="address of a second server, asked the same samples after the first")
    against: Path | None = Field(None, description="earlier results on the same samples, to compare with as first arm")
    dataset: str = Field("synthetic", description=words.DATASET)
    split: str = Field("measuring", description=words.SPLIT)
    samples: Samples = 200
    seed: Seed = Field(0, description=words.SEED)
    families: list[str] | None = Field(None, description=words.FAMILIES)
    concurrency: int = Field(8, gt=0, le=1024, description="requests at a time")
    timeout: Seconds = Field(120.0, description=words.REQUEST_TIMEOUT)
    max_tokens: int | None = Field(
        None, gt=0, le=1024, description="length of a reply, in tokens; enough for the longest option if not given"
    )
    model: str | None = Field(None, description=words.SERVED_MODEL)
    api_key_env: str = Field("OPENAI_API_KEY", description=words.API_KEY_ENV)
    out: Path | None = Field(None, description="write everything, each reply included, to this JSON file")
    attach: Path | None = Field(None, description="write the accuracies into this pruning plan, which the server runs")
