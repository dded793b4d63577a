"""Owns what a checkpoint's files say by themselves: configuration, quantisation, tensors, tokenizer, digests.

Standard library only, so that a broken folder is named within a second. Does not know transformers, torch or vLLM,
which take many seconds to import, nor where a checkpoint came from.
"""

__all__ = [
    "configuration",
    "expected_shapes",
    "file_digests",
    "preprocessing",
    "quantisation",
    "safetensors_header",
    "weights",
]
