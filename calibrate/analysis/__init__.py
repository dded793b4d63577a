"""The paper's analyses of a model on a dataset: owns what one pass measures, what follows from it and what is drawn.

Knows models, datasets and formulas through the rest of `calibrate`; does not know the page that shows it.
"""

__all__ = [
    "ablating",
    "ablation_section",
    "accuracy_section",
    "attention",
    "claims",
    "concatenated",
    "document",
    "findings",
    "heads",
    "jackknife",
    "lens",
    "lens_section",
    "measure",
    "panels",
    "rankings_section",
    "report",
    "section",
    "similarity",
    "similarity_sections",
    "stages_finding",
    "tallies",
    "words",
]
