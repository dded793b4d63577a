"""From attention to head scores: rows, formulas, effects, and the run that adds them up into a head profile.

Does not know what is done with a score.
"""

__all__ = ["attention_rows", "calibration", "effects", "scorers", "sums"]
