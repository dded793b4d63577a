"""Puts an attention function of one's own into a model's decoder for as long as a context lasts.

Owns transformers' registries: an entry goes in and comes out again. Never touches the vision tower. Does not know what
the function does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from calibrate.models.loading import LoadedModel


@contextmanager
def decoder_attention(loaded: LoadedModel, attend: Callable[..., tuple[Tensor, None]]) -> Iterator[None]:
    """Let the decoder attend by `attend`, which transformers calls as it calls its own, with the masks that SDPA gets.

    The model's attention implementation and transformers' registries are as before when the context ends.

    Parameters
    ----------
    attend
        Takes the module, queries `(batch, query heads, n, head size)`, keys and values
        `(batch, KV heads, n, head size)`, the mask and further keyword arguments; returns the output,
        `(batch, n, query heads, head size)`, and `None`.
    """
    decoder: Any = loaded.language_model
    before = decoder.config._attn_implementation
    name = f"vhserve_{uuid4().hex}"
    AttentionInterface.register(name, attend)
    # Without an entry of its own, transformers would give an unknown implementation no mask at all.
    AttentionMaskInterface.register(name, sdpa_mask)
    try:
        decoder.set_attn_implementation(name)
        yield
    finally:
        decoder.set_attn_implementation(before)
        # The registries have no public way to take an entry out.
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)
