"""From a head profile to a pruning plan, and what the plan saves: rankings, budgets, units, layouts.

Never writes files, and does not know how anything was measured.
"""
