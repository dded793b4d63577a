"""Claims and findings: what a number must pass to bear a claim out, and figures that are put together from others.

Owns when an interval decides. Does not know what is claimed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from calibrate.stats.estimates import Estimate

Verdict = Literal["holds", "does not hold", "not decided", "not measured"]


@dataclass(frozen=True)
class Claim:
    """One claim of a finding: in words, what was found, and whether that bears it out."""

    claim: str
    found: str
    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Finding:
    """A finding of the paper and what becomes of it here."""

    title: str
    paper: str
    claims: Sequence[Claim]

    @property
    def verdict(self) -> str:
        """Over all claims that were measured."""
        verdicts = [claim.verdict for claim in self.claims if claim.verdict != "not measured"]
        if not verdicts:
            return "not measured"
        same = len(set(verdicts)) == 1
        word: str = verdicts[0] if same else "holds in part" if "holds" in verdicts else "not borne out"
        return word if len(verdicts) == len(self.claims) else f"{word}, as far as measured"


def above(claim: str, estimate: Estimate | None, bound: float, words: str, why_not: str = "") -> Claim:
    """A claim that a figure exceeds a bound; decided where its interval lies on one side."""
    if estimate is None:
        return Claim(claim, why_not, "not measured", bound=bound)
    verdict: Verdict = "not decided"
    if estimate.low is not None and estimate.high is not None:
        verdict = "holds" if estimate.low > bound else "does not hold" if estimate.high < bound else "not decided"
    return Claim(claim, words, verdict, estimate.value, estimate.low, estimate.high, bound)


def below(claim: str, estimate: Estimate | None, bound: float, words: str, why_not: str = "") -> Claim:
    """A claim that a figure stays below a bound."""
    if estimate is None:
        return Claim(claim, why_not, "not measured", bound=bound)
    verdict: Verdict = "not decided"
    if estimate.low is not None and estimate.high is not None:
        verdict = "holds" if estimate.high < bound else "does not hold" if estimate.low > bound else "not decided"
    return Claim(claim, words, verdict, estimate.value, estimate.low, estimate.high, bound)


def minus(first: Estimate, second: Estimate) -> Estimate:
    """Difference of figures as if independent (Newcombe's square-and-add); of paired ones that is cautious."""
    value = first.value - second.value
    if None in (first.low, first.high, second.low, second.high):
        return Estimate(value, None, None)
    down = np.hypot(first.value - float(first.low or 0), float(second.high or 0) - second.value)
    up = np.hypot(float(first.high or 0) - first.value, second.value - float(second.low or 0))
    return Estimate(value, value - float(down), value + float(up))
