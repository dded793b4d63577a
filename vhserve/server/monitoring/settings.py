"""What the canary and the shadow are told: plain values, which travel to every API server among its arguments.

Owns their checks. Opens no data set and no connection.
"""

from dataclasses import dataclass

from vhserve.evaluation.address import check_base_url


@dataclass(frozen=True)
class CanarySettings:
    """A labelled data set, by the name that `calibrate.datasets.open_dataset` knows, and how often to ask it.

    Attributes
    ----------
    samples
        How many of its samples make a run.
    interval
        Seconds from the start of one run to the start of the next.
    """

    dataset: str
    samples: int
    interval: float


@dataclass(frozen=True)
class ShadowSettings:
    """An unpruned endpoint, and the share of live requests to repeat there, 0 to 1.

    Raises
    ------
    BaseUrlInvalid
    """

    url: str
    fraction: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", check_base_url(self.url))


@dataclass(frozen=True)
class LiveSettings:
    """Either may be absent."""

    canary: CanarySettings | None = None
    shadow: ShadowSettings | None = None
