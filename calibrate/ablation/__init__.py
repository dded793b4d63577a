"""What heads are worth: owns accuracy with chosen heads treated, against the untreated model, as tables and curves.

Does not know how a head is treated, nor how scores are measured.
"""

__all__ = ["figure", "plans", "results", "run", "tables", "treatments"]
