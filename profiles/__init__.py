"""The contract: head profiles and pruning plans as strict, versioned files (see FORMAT.md).

Knows pydantic and numpy, and Pillow in `profiles.pictures`. Does not know how a profile is measured (`calibrate`) or
how a plan is served (`vhserve`), and never imports torch, transformers or vllm.
"""

__all__ = [
    "arrays",
    "canonical",
    "chat_template",
    "checkpoints",
    "defects",
    "error_text",
    "errors",
    "files",
    "fingerprint",
    "geometry",
    "head_profile",
    "image_spans",
    "measurement",
    "names",
    "overlap",
    "picture_digests",
    "pictures",
    "planning",
    "provenance",
    "pruning_plan",
    "ranking",
    "reading",
    "selection",
    "store",
    "strict",
    "suggestions",
    "torchvision_import",
    "transformers_config",
    "treatments",
    "version_1",
]
