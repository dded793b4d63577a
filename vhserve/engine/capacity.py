"""How many requests a KV cache holds at once, for prompts with an image and for prompts of text alone.

vLLM's own figure counts every request at the greatest length and as text; text-only heads hold far less of an image
prompt. Arithmetic on KV cache groups; knows neither plans nor heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec, iter_layer_specs

from vhserve.engine.kv_spec import TextOnlySpec
from vhserve.engine.lanes import TEXT_TOKENS, Prompt


@dataclass(frozen=True)
class Capacity:
    """Requests of one length that fit at once, before they generate anything.

    Attributes
    ----------
    tokens, image_tokens
        Length of the prompt, and how much of it is an image; the text prompt has the same length.
    image_requests, text_requests
        How many of them fit.
    """

    tokens: int
    image_tokens: int
    image_requests: float
    text_requests: float

    def __str__(self) -> str:
        return (
            f"KV cache holds {self.image_requests:.2f} prompts of {self.tokens} tokens of which {self.image_tokens} "
            f"are an image, or {self.text_requests:.2f} of {self.tokens} text tokens (text-only heads keep no image; "
            "the maximum concurrency that vLLM reports is for text)"
        )


def is_text_only(spec: KVCacheSpec) -> bool:
    """Whether a group's spec, which may hold one spec for each layer, is of text-only heads."""
    return all(isinstance(layer, TextOnlySpec) for layer in iter_layer_specs(spec))


def blocks_of(specs: Sequence[KVCacheSpec], prompt: Prompt) -> int:
    """Blocks of the shared pool that a request of this prompt holds, over all groups."""
    return sum(prompt.text_blocks if is_text_only(spec) else prompt.blocks for spec in specs)


def capacity(config: KVCacheConfig, image_tokens: int, block_size: int) -> Capacity:
    """Capacity of an engine's KV cache for its model's usual prompt."""
    specs = [group.kv_cache_spec for group in config.kv_cache_groups]
    image = Prompt.with_image(TEXT_TOKENS, image_tokens, block_size)
    usable = config.num_blocks - 1  # the null block is never handed out
    return Capacity(
        tokens=TEXT_TOKENS + image_tokens,
        image_tokens=image_tokens,
        image_requests=usable / blocks_of(specs, image),
        text_requests=usable / blocks_of(specs, Prompt(image.blocks, image.blocks)),
    )
