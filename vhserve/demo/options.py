"""The options of the demo: one model, whose fields are the flags of `vhserve demo` and their defaults.

Knows pydantic, the names in `profiles` and the types that options share. Does not know what is done with them.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from profiles.names import AttentionRanking, StageOrAll
from vhserve import option_types as words
from vhserve.devices import serving_device
from vhserve.option_types import Count, CountOrZero, Percentage, Samples, Seconds, Seed

Streams = Annotated[int, Field(gt=0, le=1024)]


def usual_dtype() -> Literal["float32", "bfloat16"]:
    """Exact where it costs little; on GPUs what FlashAttention takes."""
    return "float32" if serving_device() == "cpu" else "bfloat16"


class DemoOptions(BaseModel):
    """What is pruned, how it is measured and where it goes; each field's description is the flag's help text."""

    out: Path = Field(Path("demo-out"), description="folder for everything that the demo writes")
    model: str = Field("demo", description=words.MODEL)
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        usual_dtype(),
        description="dtype of the servers; float32 on CPUs, bfloat16 on GPUs if not given",
    )
    samples: Samples = Field(240, description="held-out samples that every arm is asked")
    calibration_samples: Samples = Field(256, description="samples to score the heads on")
    remove: CountOrZero = Field(8, description=words.REMOVE)
    text_only: CountOrZero = Field(24, description=words.TEXT_ONLY)
    stage: StageOrAll = Field("all", description=words.STAGE)
    rank_by: Literal[AttentionRanking, "effect"] = Field("effect", description="what heads are ranked by")
    select: Literal["bottom", "top"] = Field("bottom", description="which heads: lowest or highest ranked first")
    protect_top: Percentage = Field(10.0, description=words.PROTECT_TOP)
    concurrency: list[Streams] = Field([1, 8], min_length=1, description="streams at a time, for the latencies")
    requests: Count = Field(24, description="requests for each latency, at least four times the concurrency")
    output_tokens: int = Field(32, gt=1, le=256, description="tokens of each reply, for the latencies")
    kv_cache_gib: int = Field(1, gt=0, le=65_536, description="GiB of KV cache for each server")
    seed: Seed = Field(0, description="seed of samples, of pictures and of the random control")
    start_limit: Seconds = Field(300.0, description="seconds that a server may take to start")
