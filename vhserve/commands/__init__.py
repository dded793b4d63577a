"""The commands, a file for each: its flags as one pydantic model, and the order of its steps.

Does not know how a step is carried out.
"""

__all__ = [
    "ablate",
    "analyze",
    "calibrate",
    "demo",
    "evaluate",
    "flags",
    "help_pages",
    "loadtest",
    "measuring",
    "models",
    "needed_options",
    "options",
    "plan",
    "plan_show",
    "profile",
    "ranking_option",
    "rankings",
    "serve",
    "served_model",
]
