"""What a plan saves as it is served, in words: a line when the server starts, and a warning where it is little.

The arithmetic is in `vhserve.engine.kv_cache.saving`. Does not know where the words are printed.
"""

from typing import Final

from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.saving import promised_share, prompt_saving, saving_ratio

LITTLE: Final = 0.5
"""Ratio of saving as served and promised, below which the user is warned."""


def described(plan: PruningPlan, block_size: int, dtype: str, kv_dtype: str) -> str:
    """One line on what the plan saves as served.

    Parameters
    ----------
    block_size
        Tokens of a KV block.
    dtype, kv_dtype
        Of the weights, and of the KV cache.
    """
    saving, promised = prompt_saving(plan, block_size), promised_share(plan)
    cache = "" if kv_dtype == dtype else f" with a KV cache of {kv_dtype}"
    return (
        f"the plan as served, in {dtype}{cache} and KV blocks of {block_size} tokens: {saving.concurrency:.3f} times "
        f"as many prompts of {saving.image_tokens} image and {saving.text_tokens} text tokens fit; it saves "
        f"{saving.share:.1%} of their KV cache, {promised:.1%} were promised"
    )


def shortfall(plan: PruningPlan, block_size: int) -> str | None:
    """What is wrong where a plan saves less than half of what it promised, and what to do; None elsewhere."""
    if saving_ratio(plan, block_size) >= LITTLE:
        return None
    saved, promised = prompt_saving(plan, block_size).share, promised_share(plan)
    own, cure = plan.block_size, "make the plan again for this server"
    if own and own != block_size:
        cure = f"leave --block-size out, or give {own}"
    return (
        f"saves {saved:.1%} of the KV cache of a prompt with an image in KV blocks of {block_size} tokens, where it "
        f"promised {promised:.1%}{f' in blocks of {own}' if own else ''}: {cure}"
    )
