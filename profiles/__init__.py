"""The contract: head profiles and pruning plans as strict, versioned files (see FORMAT.md).

Knows pydantic and numpy. Does not know how a profile is measured (`calibrate`) or how a plan is served (`vhserve`),
and never imports torch, transformers or vllm.
"""
