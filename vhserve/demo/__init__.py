"""Owns the order in which vhserve's commands show what it does: calibrate, plan, serve each arm, measure it, report.

Does not know how any of them works, and measures nothing itself.
"""

__all__ = [
    "arms",
    "errors",
    "options",
    "processes",
    "results",
    "run",
    "steps",
]
