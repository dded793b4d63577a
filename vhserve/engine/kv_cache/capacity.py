"""How many requests a KV cache holds at once, for prompts with an image and for prompts of text alone.

vLLM's own figure counts every request at the greatest length and as text; partial heads hold less of an image prompt,
and evicted heads less again once it is computed. Arithmetic on counts of KV cache groups; does not know vLLM.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from profiles.names import TreatmentName
from profiles.planning.layout import layer_layouts
from profiles.planning.summary import USUAL_TEXT_TOKENS
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, Phase
from vhserve.engine.kv_cache.lanes import PromptBlocks, lanes_of


@dataclass(frozen=True)
class GroupCounts:
    """Number of KV cache groups of an engine, by treatment: each has a block table, and all take blocks of one size
    from one pool.
    """

    of: Mapping[TreatmentName, int]

    def blocks(self, prompt: PromptBlocks, phase: Phase = "prompt") -> int:
        """Blocks of the pool that a request with this prompt holds in a phase, over all groups."""
        return sum(count * prompt.kept(name, phase) for name, count in self.of.items())


@dataclass(frozen=True)
class Capacity:
    """Requests of one length that fit at once, before they generate anything.

    Attributes
    ----------
    tokens, image_tokens
        Length of the prompt in tokens, and how many of them are an image; the text prompt has the same length.
    image_requests
        How many requests with an image prompt fit while their prompts are computed; fractions of a request count.
    image_replies
        How many of them fit once their prompts are computed: more where heads drop image blocks then.
    text_requests
        How many fit with a text prompt.
    """

    tokens: int
    image_tokens: int
    image_requests: float
    image_replies: float
    text_requests: float

    def __str__(self) -> str:
        answered = ""
        if self.image_replies != self.image_requests:
            answered = f" ({self.image_replies:.2f} of them once their prompts are computed)"
        return (
            f"KV cache holds {self.image_requests:.2f} prompts of {self.tokens} tokens of which {self.image_tokens} "
            f"are an image{answered}, or {self.text_requests:.2f} of {self.tokens} text tokens (the maximum "
            "concurrency that vLLM reports is for text)"
        )


def groups_of(plan: PruningPlan, block_size: int) -> GroupCounts:
    """KV cache groups that an engine has with a plan: one, or the plan's lanes if it has partial heads."""
    lanes = lanes_of(layer_layouts(plan), plan.geometry.image_tokens, block_size)
    return GroupCounts({FULL.name: 1} if lanes is None else {name: len(of) for name, of in lanes.of.items()})


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
        image_replies=usable_blocks / groups.blocks(image, "reply"),
        text_requests=usable_blocks / groups.blocks(PromptBlocks(image.blocks)),
    )
