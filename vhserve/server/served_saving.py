"""What a plan saves as it is served, in words: a line when the server starts, and a warning where it is little.

The arithmetic is in `vhserve.engine.kv_cache.saving`. Does not know where the words are printed.
"""

from typing import Final

from profiles.pruning_plan import PruningPlan
from profiles.treatments import TREATMENTS
from vhserve.devices import DEVICES, LABELS, Device, block_size_on
from vhserve.engine.kv_cache.saving import costly_treatments, promised_share, prompt_saving, saving_ratio

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


def shortfall(plan: PruningPlan, block_size: int, device: Device) -> str | None:
    """What is wrong, and what helps, where a plan costs memory or saves less than half of its promise; else None."""
    saved, promised = prompt_saving(plan, block_size).share, promised_share(plan)
    if saved >= 0 and saving_ratio(plan, block_size) >= LITTLE:
        return None
    does = f"saves {saved:.1%} of the KV cache" if saved >= 0 else f"takes {-saved:.1%} more KV cache than no plan"
    own = f" in blocks of {plan.block_size}" if plan.block_size else ""
    wanted = f", where it promised to save {promised:.1%}{own}" if promised > 0 else ""
    cure = _cure(plan, block_size, device)
    return f"{does} for a prompt with an image, in KV blocks of {block_size} tokens{wanted}: {cure}"


def _cure(plan: PruningPlan, block_size: int, device: Device) -> str:
    """What helps, of plans made by hand as of others: how the heads were chosen is no part of it."""
    usual = block_size_on(device, plan.block_size)
    smaller = f"leave --block-size out, or give {usual}"
    if usual < block_size and _saves(plan, usual):
        return smaller
    cures = []
    if costly := costly_treatments(plan, usual):
        cures.append(f"leave its {' or its '.join(TREATMENTS[name].label for name in costly)} heads full")
    cures.append("give its treatments more heads")
    sizes = {one: block_size_on(one, plan.block_size) for one in DEVICES}
    cures += [f"serve on {LABELS[one]}" for one, size in sizes.items() if size < usual and _saves(plan, size)]
    return (
        f"{f'{smaller}; then ' if usual < block_size else ''}{', or '.join(cures)}: each treatment has KV cache groups "
        "of its own, whose padding takes much of what few heads save"
    )


def _saves(plan: PruningPlan, block_size: int) -> bool:
    return prompt_saving(plan, block_size).share > 0 and saving_ratio(plan, block_size) >= LITTLE
