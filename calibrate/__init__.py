"""Looks at a model with transformers: owns how heads are scored and treated, how accuracy is measured and shown.

Does not know vLLM, nor how a plan is served. Importing this package is cheap: torch and transformers are imported by
the modules that use them.
"""

__all__ = [
    "ablation",
    "analysis",
    "datasets",
    "demo",
    "documents",
    "drawing",
    "errors",
    "masking",
    "models",
    "rankings",
    "runs",
    "scoring",
    "stats",
    "terminal_tables",
]
