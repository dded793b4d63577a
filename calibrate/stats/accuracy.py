"""A share of right answers, with its interval.

Owns how counts become an accuracy. Knows counts of right and wrong answers, nothing of models or datasets.
"""

from dataclasses import dataclass

from calibrate.stats.intervals import wilson


@dataclass(frozen=True)
class Accuracy:
    """How many of some samples are right.

    Attributes
    ----------
    correct, samples
        `0 <= correct <= samples`; of one sample at least.
    """

    correct: int
    samples: int

    @property
    def share(self) -> float:
        """Right answers over all, 0 to 1; higher is better."""
        return self.correct / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson score interval of `share`."""
        return wilson(self.correct, self.samples)
