"""Statistics of right answers and of ranks: intervals, paired tests, correlations.

Owns arrays in, numbers out. Does not know models or datasets.
"""

__all__ = ["accuracy", "correlation", "intervals", "paired_tests", "rank_correlation"]
