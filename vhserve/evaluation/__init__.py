"""Measuring a server through its OpenAI-compatible endpoint: accuracy, paired comparison, latency.

Knows HTTP and the results file. Does not know how the server came to be, and never imports torch or vllm.
"""
