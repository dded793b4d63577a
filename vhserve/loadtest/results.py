"""The results file of `vhserve loadtest`: what was sent, to which endpoints, and the figures.

Owns the schema. All times are seconds. Does not know how figures are computed (`figures`, `comparison`).
"""

from typing import Literal

from pydantic import Field, JsonValue

from vhserve.evaluation.results import ResultModel, Server

SINGLE_ENDPOINT = "endpoint"
"""Name of an endpoint that is not compared with another."""


class Distribution(ResultModel):
    """Seconds over requests (for `itl`: over gaps of all requests). Quantiles are exact, linear between neighbours."""

    count: int = Field(gt=0)
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class LoadFigures(ResultModel):
    """Figures of a group of requests. Lower is better for latencies, higher for everything per second.

    Latencies are in seconds, of requests that succeeded, and defined in `vhserve.evaluation.token_latency`; `lag` is
    how late the client sent requests. `good` met every limit of the SLO; failed ones did not, aborted ones are left
    out. `seconds` runs from the first request that was due to the last piece of a reply; all turns together.
    """

    requests: int = Field(ge=0)
    succeeded: int = Field(ge=0)
    failed: int = Field(ge=0)
    aborted: int = Field(ge=0)
    good: int | None = Field(ge=0)
    seconds: float = Field(ge=0)
    output_tokens: int = Field(ge=0)
    prompt_tokens: int = Field(ge=0)
    requests_per_second: float
    output_tokens_per_second: float
    goodput_per_second: float | None
    good_share: float | None
    error_share: float | None
    ttft: Distribution | None
    itl: Distribution | None
    tpot: Distribution | None
    e2e: Distribution | None
    lag: Distribution | None


class ErrorCount(ResultModel):
    """Failed requests of one kind, and the message of the first."""

    kind: str
    count: int = Field(gt=0)
    first: str


class ServerLoad(ResultModel):
    """What `/metrics` reported while requests were measured; `None` where a server does not report it.

    `kv_use` is of 1, the fullest engine's; counters are increases. `scrapes` is how often it was read.
    """

    scrapes: int
    preemptions: float | None
    kv_use_mean: float | None
    kv_use_max: float | None
    running_max: float | None
    waiting_max: float | None
    prefix_hit_share: float | None


class ClientLoad(ResultModel):
    """How busy the sending processes were: the busiest one's share of a core, and how late its event loop woke.

    `saturated` has the reason why latencies are the client's and not the server's; empty when it was idle enough.
    """

    processes: int
    cpu_mean: float
    cpu_max: float
    late_p99: float
    saturated: str


class TimelineSecond(ResultModel):
    """One second of a turn: requests by how they ended then, tokens that came, requests under way, and the server."""

    turn: int
    second: int
    succeeded: int
    failed: int
    output_tokens: int
    in_flight: int
    kv_use: float | None
    running: float | None
    waiting: float | None
    client_cpu: float | None


class EndpointResult(ResultModel):
    """One endpoint: the figures of all requests, of each kind of request, and of each turn."""

    name: str
    server: Server
    figures: LoadFigures
    kinds: dict[str, LoadFigures]
    turns: list[LoadFigures]
    errors: list[ErrorCount]
    server_load: ServerLoad
    client: ClientLoad
    timeline: list[TimelineSecond]


class Ratio(ResultModel):
    """Second endpoint over first: of the pooled figures, and of each round's two turns, with their median and ends."""

    figure: str
    pooled: float
    median: float
    low: float
    high: float
    rounds: list[float]


class Condition(ResultModel):
    """A --fail-if condition: what it found, and whether that fails the run. A figure that is missing does."""

    expression: str
    found: dict[str, float | None]
    violated: bool


class LoadTest(ResultModel):
    """Everything that one run of `vhserve loadtest` found."""

    format: Literal["vhserve.loadtest"] = "vhserve.loadtest"
    version: Literal[1] = 1
    arguments: dict[str, JsonValue]
    seed: int
    arrivals: str
    slo: dict[str, float]
    endpoints: list[EndpointResult] = Field(min_length=1, max_length=2)
    ratios: list[Ratio]
    conditions: list[Condition]
    versions: dict[str, str]
    commit: str | None
    started: str
    seconds: float
