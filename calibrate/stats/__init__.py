"""Statistics of right answers and of ranks: owns intervals, paired tests and correlations, arrays in and numbers out.

Does not know models or datasets.
"""

__all__ = ["accuracy", "correlation", "estimates", "intervals", "nothing_right", "paired_tests", "rank_correlation"]
