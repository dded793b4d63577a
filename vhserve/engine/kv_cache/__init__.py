"""The KV cache of a plan: which layers share blocks, which blocks a request holds, how many requests fit.

Does not know weights or kernels.
"""
