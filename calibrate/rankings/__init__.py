"""Which ranking of heads is right: rank correlations with what heads cost when they are treated.

Does not know how a ranking was measured.
"""
