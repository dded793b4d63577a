"""Numbers in words: shares, figures with their intervals.

Knows no analysis.
"""

from calibrate.ablation.tables import MINUS
from calibrate.stats.estimates import Estimate


def with_ci(estimate: Estimate | None, digits: int = 3, scale: float = 1.0, unit: str = "") -> str:
    """A figure with its 95% interval, as in `0.31 (0.29 to 0.33)`; nothing of none."""
    if estimate is None:
        return ""
    text = number(estimate.value, digits, scale) + unit
    if estimate.low is None or estimate.high is None:
        return f"{text} (too few samples for an interval)"
    return f"{text} ({number(estimate.low, digits, scale)} to {number(estimate.high, digits, scale)})"


def number(value: float, digits: int = 3, scale: float = 1.0) -> str:
    """A number with a true minus sign, and no sign at all where it rounds to 0."""
    text = f"{value * scale:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text.replace("-", MINUS)


def percent(share: float, digits: int = 1) -> str:
    """A share in percent."""
    return f"{number(share, digits, 100)}%"


def counted(count: int, thing: str) -> str:
    """`1 head`, `2 heads`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
