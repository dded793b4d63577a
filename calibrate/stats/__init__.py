"""Statistics of right answers and of ranks: intervals, paired tests, correlations.

Arrays in, numbers out; does not know models or datasets.
"""
