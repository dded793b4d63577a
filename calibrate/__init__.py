"""Looks at a model with transformers: scores heads, masks heads, measures accuracy.

Importing this package is cheap: torch and transformers are imported by the modules that use them. Does not know vLLM,
nor how a plan is served.
"""
