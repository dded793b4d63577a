"""The vLLM extension: model surgery, KV cache and scheduling for a pruning plan, a file for each idea.

Runs inside vLLM's processes. Knows `profiles` and vLLM; never imports `calibrate` or the command line.
"""
