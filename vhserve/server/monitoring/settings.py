"""Settings of the canary and the shadow: plain values, which are pickled for every API server.

Owns their validation. Opens no data set and no connection.
"""

from dataclasses import dataclass

from vhserve.evaluation.address import check_base_url


@dataclass(frozen=True)
class CanarySettings:
    """A labelled data set, by the name that `calibrate.datasets.open_dataset` knows, and how often to run it.

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
class MonitoringSettings:
    """Either may be absent."""

    canary: CanarySettings | None = None
    shadow: ShadowSettings | None = None

    @property
    def enabled(self) -> bool:
        """Whether there is anything to run."""
        return self.canary is not None or self.shadow is not None
