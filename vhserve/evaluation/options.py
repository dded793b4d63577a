"""The options of an evaluation: one model, whose fields are the flags of `vhserve evaluate` and their defaults.

Knows pydantic alone. Does not know what is done with them.
"""

from pathlib import Path

from pydantic import BaseModel, Field


class EvaluationOptions(BaseModel):
    """Which servers to ask, which samples, how, and where to write; descriptions of fields are the flags' help."""

    base_url: str = Field("http://127.0.0.1:8000/v1", description="address of the server, with its /v1")
    compare: str | None = Field(None, description="address of a second server, asked the same samples after the first")
    against: Path | None = Field(None, description="earlier results on the same samples, to compare with as first arm")
    dataset: str = Field(
        "synthetic",
        description="`synthetic`, a .jsonl file, or a published dataset and where it is, such as pope:/data/pope",
    )
    split: str = Field(
        "measuring",
        description="half of the dataset's pictures: `choosing`, which heads are chosen by, `measuring`, which they "
        "are measured on, or `all`; or a published split, such as test",
    )
    samples: int = Field(200, gt=0, description="how many samples to ask")
    families: list[str] | None = Field(None, description="question families to ask, comma-separated; all by default")
    seed: int = Field(0, ge=0, description="seed of the samples' choice")
    concurrency: int = Field(8, gt=0, le=1024, description="requests at a time")
    timeout: float = Field(120.0, gt=0, description="seconds until a request counts as failed")
    max_tokens: int = Field(8, gt=0, le=1024, description="length of a reply, in tokens")
    model: str | None = Field(None, description="served model's name; the only one by default")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the API key, if any")
    out: Path | None = Field(None, description="write everything, each reply included, to this JSON file")
    attach: Path | None = Field(None, description="write the accuracies into this pruning plan, which the server runs")
