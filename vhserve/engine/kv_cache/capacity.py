"""How many requests a KV cache holds at once, for prompts with an image and for prompts of text alone.

vLLM's own figure counts every request at the greatest length and as text; text-only heads hold far less of an image
prompt. Arithmetic on counts of KV cache groups; does not know vLLM.
"""

from dataclasses import dataclass
from typing import NamedTuple

from profiles.planning.layout import layer_layouts
from profiles.planning.summary import USUAL_TEXT_TOKENS
from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.lanes import PromptBlocks, lanes_of


class GroupCounts(NamedTuple):
    """Number of KV cache groups of an engine; each has a block table, and all take blocks of one size from one pool."""

    full: int
    text_only: int

    def blocks(self, prompt: PromptBlocks) -> int:
        """Blocks of the pool that a request with this prompt holds, over all groups."""
        return self.full * prompt.blocks + self.text_only * prompt.text_blocks


@dataclass(frozen=True)
class Capacity:
    """Requests of one length that fit at once, before they generate anything.

    Attributes
    ----------
    tokens, image_tokens
        Length of the prompt in tokens, and how many of them are an image; the text prompt has the same length.
    image_requests, text_requests
        How many requests fit with an image prompt, and with a text prompt; fractions of a request count.
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


def groups_of(plan: PruningPlan, block_size: int) -> GroupCounts:
    """KV cache groups that an engine has with a plan: one, or the plan's lanes if it has text-only heads."""
    lanes = lanes_of(layer_layouts(plan), plan.geometry.image_tokens, block_size)
    return GroupCounts(1, 0) if lanes is None else GroupCounts(len(lanes.full), len(lanes.text))


def capacity(groups: GroupCounts, usable_blocks: int, image_tokens: int, block_size: int) -> Capacity:
    """Capacity for a model's usual prompt, one image in `USUAL_TEXT_TOKENS` of text.

    Parameters
    ----------
    usable_blocks
        Blocks of the pool, without the null block, which is never allocated.
    block_size
        Tokens of a block.
    """
    image = PromptBlocks.with_image(USUAL_TEXT_TOKENS, image_tokens, block_size)
    return Capacity(
        tokens=USUAL_TEXT_TOKENS + image_tokens,
        image_tokens=image_tokens,
        image_requests=usable_blocks / groups.blocks(image),
        text_requests=usable_blocks / groups.blocks(PromptBlocks(image.blocks, image.blocks)),
    )
