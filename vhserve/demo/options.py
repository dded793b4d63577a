"""The options of the demo: one model, whose fields are the flags of `vhserve demo` and their defaults.

Knows pydantic and the names in `profiles`. Does not know what is done with them.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, PositiveInt

from profiles.names import AttentionRanking, StageOrAll


class DemoOptions(BaseModel):
    """What is pruned, how it is measured and where it goes; each field's description is the flag's help text."""

    out: Path = Field(Path("demo-out"), description="folder for everything that the demo writes")
    model: str = Field("demo", description="model to show it on")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="number format of the servers")
    samples: int = Field(240, gt=0, description="held-out samples that every arm is asked")
    calibration_samples: int = Field(256, gt=0, description="samples to score the heads on")
    remove: int = Field(8, ge=0, description="heads to remove")
    text_only: int = Field(24, ge=0, description="heads that keep their text and drop the image")
    stage: StageOrAll = Field("all", description="layers to take them from")
    rank_by: Literal[AttentionRanking, "effect"] = Field("effect", description="what heads are ranked by")
    select: Literal["bottom", "top"] = Field("bottom", description="which heads: lowest or highest ranked first")
    protect_top: float = Field(10.0, ge=0, le=100, description="percentage of heads, the highest ranked, to protect")
    concurrency: list[PositiveInt] = Field([1, 8], min_length=1, description="streams at a time, for the latencies")
    requests: int = Field(24, gt=0, description="requests for each latency, at least four times the concurrency")
    output_tokens: int = Field(32, gt=1, le=256, description="tokens of each reply, for the latencies")
    kv_cache_gib: int = Field(1, gt=0, description="GiB of KV cache for each server")
    seed: int = Field(0, ge=0, description="seed of samples, of pictures and of the random control")
    start_limit: float = Field(300.0, gt=0, description="seconds that a server may take to start")
