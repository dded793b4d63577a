"""The demo's results file: every arm with all that was measured of it.

Owns the schema. Does not know how anything is measured or shown.
"""

from typing import Literal

from pydantic import Field, JsonValue

from profiles.head_profile import DatasetRef
from vhserve.evaluation.latency import LatencyFigures
from vhserve.evaluation.results import Arm, Paired, ResultModel


class DemoArmResult(ResultModel):
    """One arm.

    Attributes
    ----------
    heads
        How many heads get each treatment.
    startup_seconds
        Seconds from the start of the server to its first healthy answer.
    kv_bytes_per_token
        Bytes of KV cache that one token takes: as the server reports them, or from the plan's arithmetic where
        `kv_bytes_source` says so.
    capacity_tokens
        Text tokens that the KV cache holds, as vLLM reports them; `None` where it doesn't.
    capacity_image_prompts
        Prompts of the model's usual length with an image that the KV cache holds at once; `None` where not reported.
    """

    name: str
    about: str
    plan: str | None
    heads: dict[str, int]
    startup_seconds: float
    kv_bytes_per_token: float
    kv_bytes_source: Literal["server", "plan"]
    capacity_tokens: int | None
    capacity_image_prompts: float | None
    accuracy: Arm
    latency: list[LatencyFigures]


class DemoResults(ResultModel):
    """The whole demo; the first arm is the one that others are compared with.

    Attributes
    ----------
    heads_together
        Query heads that the plans treat as one: those of a KV group, or 1.
    """

    format: Literal["vhserve.demo"] = "vhserve.demo"
    version: Literal[1] = 1
    model: str
    revision: str
    dataset: DatasetRef
    profile_digest: str
    kv_cache_gib: float
    heads_together: int = Field(1, ge=1)
    arms: list[DemoArmResult] = Field(min_length=1)
    paired: list[Paired]
    arguments: dict[str, JsonValue]
    machine: dict[str, JsonValue]
    versions: dict[str, str]
    commit: str | None
    started: str
    seconds: float
