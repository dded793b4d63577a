"""The paper's analyses of a model on a dataset: what one pass measures, what is worked out of it, what is drawn.

Knows models, datasets and formulas through the rest of `calibrate`; does not know the page that shows it.
"""
