"""Owns the order in which vhserve's commands show what it does, from calibration to a page about every arm.

Does not know how any of them works, and measures nothing itself.
"""

__all__ = [
    "answered",
    "arms",
    "checks",
    "figures",
    "headline",
    "options",
    "page",
    "results",
    "rows",
    "run",
    "steps",
    "summary",
]
