"""From a head profile to a pruning plan, and what the plan saves: rankings, budgets, units, layouts.

Never writes files, and does not know how anything was measured.
"""

__all__ = [
    "budget",
    "fit",
    "image_exit",
    "layout",
    "planner",
    "published_scores",
    "rankings",
    "savings",
    "summary",
    "units",
]
