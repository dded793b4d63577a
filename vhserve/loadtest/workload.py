"""What to send to an endpoint, and for how long: one model, whose fields are flags in two places.

`vhserve loadtest` inherits them, the locustfile makes its own flags of them. Knows pydantic and the types that options
share.
"""

from pydantic import BaseModel, ConfigDict, Field

from vhserve import option_types as words
from vhserve.option_types import Seed

LONGEST = 6 * 3600.0
"""Seconds after which any run ends."""


class Workload(BaseModel):
    """A load: how requests arrive, what is in them, when it ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str | None = Field(None, description=words.SERVED_MODEL)
    rate: float = Field(
        1.0, ge=0, le=10_000, description="requests per second, Poisson arrivals; 0: closed loop, see --concurrency"
    )
    duration: float = Field(60.0, gt=0, le=LONGEST, description="seconds to measure, after the warm-up")
    requests: int = Field(10_000, gt=0, le=1_000_000, description="requests after which measuring ends, if sooner")
    warm_up: float = Field(5.0, ge=0, le=600, description="seconds of load before, in no figure")
    output_tokens: int = Field(64, gt=0, le=16_384, description="tokens of every reply, enforced")
    free_length: bool = Field(
        False, description="let replies end when the model ends them; for servers without vLLM's min_tokens, ignore_eos"
    )
    image_share: float = Field(1.0, ge=0, le=1, description="share of requests with a picture; the others are text")
    image_size: int = Field(336, gt=0, le=4096, description="side of the pictures in pixels; they are noise, as PNG")
    repeated_share: float = Field(
        0.0, ge=0, le=1, description="share of the pictures that come from a small pool, so that caches show"
    )
    pool: int = Field(4, gt=0, le=1024, description="pictures in that pool")
    prompt_words: int = Field(24, gt=0, le=100_000, description="words of text in every prompt, drawn at random")
    abort_share: float = Field(
        0.0, ge=0, lt=1, description="share of requests that the client drops in mid-stream; in no latency"
    )
    request_timeout: float = Field(120.0, gt=0, le=3600, description=words.REQUEST_TIMEOUT)
    max_in_flight: int = Field(
        1024, gt=0, le=20_000, description="requests under way at a time; further ones count as failed, unsent"
    )
    seed: Seed | None = Field(
        None,
        description="seed of arrivals, pictures and words; a new one each run by default, as caches outlive runs",
    )
    api_key_env: str = Field("OPENAI_API_KEY", description=words.API_KEY_ENV)
