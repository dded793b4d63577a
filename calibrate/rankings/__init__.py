"""Which ranking of heads is right: owns rank correlations with what heads cost when they are treated.

Does not know how a ranking was measured.
"""

__all__ = ["comparison", "correlations", "groups", "results", "tables"]
