"""Names of architectures that can be served with a plan, and of vhserve's own model classes.

Names only: does not know the classes themselves, which are in `vhserve.engine.models`. Whether an architecture can be
served is asked of the model that vLLM builds (`weights.decoder_attention`).
"""

from collections.abc import Sequence
from typing import Final

from vhserve.compat.models import vision_language_architectures

_PREFIX: Final = "Vhserve"

ADDED: Final = {"VipLlavaForConditionalGeneration": "vhserve.engine.vip_llava"}
"""Architecture that vLLM has no model of → module with a class of that name, which serves it without a plan."""


def vision_language() -> frozenset[str]:
    """Architectures of models that take pictures: vLLM's own, and those that vhserve adds."""
    return vision_language_architectures() | ADDED.keys()


def served_by(architecture: str) -> str:
    """Name of vhserve's class for an architecture that a checkpoint's `config.json` names.

    >>> served_by("LlavaForConditionalGeneration")
    'VhserveLlavaForConditionalGeneration'
    """
    return f"{_PREFIX}{architecture}"


def stock_architecture(architectures: Sequence[str]) -> str:
    """Architecture of the checkpoint, given the architectures of a configuration that may name vhserve's class."""
    return architectures[0].removeprefix(_PREFIX) if architectures else "unknown"
