"""What a plan saves of the KV cache of a prompt with an image, as it is served, and as it was promised.

As served is in whole blocks and in lanes, whose padding counts. Arithmetic on plans; does not know vLLM.
"""

from dataclasses import dataclass
from typing import Any

from profiles.errors import LayoutRefused
from profiles.names import TreatmentName
from profiles.planning.layout import layer_layouts
from profiles.planning.savings import ideal_concurrency
from profiles.planning.summary import USUAL_TEXT_TOKENS
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, PHASES, TREATMENTS, Phase
from vhserve.engine.kv_cache.lanes import PromptBlocks, lanes_of


@dataclass(frozen=True)
class PromptSaving:
    """KV cache of a prompt with an image.

    Attributes
    ----------
    block_size
        Tokens of a KV block.
    text_tokens, image_tokens
        Of the prompt.
    baseline, pruned
        KV heads times blocks that it takes without the plan, and with it.
    """

    block_size: int
    text_tokens: int
    image_tokens: int
    baseline: int
    pruned: int

    @property
    def concurrency(self) -> float:
        """How many times as many such prompts fit as without the plan."""
        return self.baseline / self.pruned

    @property
    def share(self) -> float:
        """Share of the KV cache that is saved, at most 1; negative where padding takes more than heads save."""
        return 1 - self.pruned / self.baseline


def prompt_saving(
    plan: PruningPlan, block_size: int, phase: Phase = "reply", image_tokens: int | None = None
) -> PromptSaving:
    """What a plan saves in blocks of `block_size` tokens, served by one engine.

    Parameters
    ----------
    phase
        While the prompt is computed, or while it is answered.
    image_tokens
        Of the prompt; None: of the model's usual image, which the engine chooses its lanes for.

    Raises
    ------
    LayoutRefused
    """
    layouts, usual = layer_layouts(plan), plan.geometry.image_tokens
    image_tokens = usual if image_tokens is None else image_tokens
    prompt = PromptBlocks.with_image(USUAL_TEXT_TOKENS, image_tokens, block_size)
    lanes = lanes_of(layouts, usual, block_size)
    pruned = lanes.held(prompt, phase) if lanes else sum(len(one.full.kv) for one in layouts) * prompt.blocks
    baseline = plan.geometry.layers * plan.geometry.kv_heads * prompt.blocks
    return PromptSaving(block_size, USUAL_TEXT_TOKENS, image_tokens, baseline, pruned)


def costly_treatments(plan: PruningPlan, block_size: int, image_tokens: int | None = None) -> list[TreatmentName]:
    """Treatments that cost memory: with their heads left full, no fewer prompts with an image would fit in any phase.

    Each treatment has KV cache groups of its own, whose padding can take more than a few heads save. Treatments whose
    heads no layout could hold as full ones are left out.

    Parameters
    ----------
    image_tokens
        Of the prompt's image; the model's usual number if not given.

    Raises
    ------
    LayoutRefused
    """
    saved = {phase: prompt_saving(plan, block_size, phase, image_tokens).pruned for phase in PHASES}
    heads = {name: plan.heads(name) for name in TREATMENTS if name != FULL.name and plan.heads(name)}
    costly = []
    for name in heads:
        if not TREATMENTS[name].is_masked:
            continue
        others: dict[str, Any] = {other: own for other, own in heads.items() if other != name}
        without = PruningPlan.manual(plan.model, plan.geometry, granularity=plan.granularity, **others)
        try:
            if all(prompt_saving(without, block_size, phase, image_tokens).pruned <= saved[phase] for phase in PHASES):
                costly.append(name)
        except LayoutRefused:
            continue
    return costly


def promised_share(plan: PruningPlan) -> float:
    """Share of the KV cache of the usual prompt that the plan was to save: in its own blocks.

    Of a plan that does not say its block size, tokens are counted, as `vhserve plan` did then.

    Raises
    ------
    LayoutRefused
    """
    if plan.block_size is not None:
        return prompt_saving(plan, plan.block_size).share
    return 1 - 1 / ideal_concurrency(plan, USUAL_TEXT_TOKENS, plan.geometry.image_tokens)


def saving_ratio(plan: PruningPlan, block_size: int) -> float:
    """What a plan saves as served over what it promised; 1 where it promised nothing.

    Raises
    ------
    LayoutRefused
    """
    promised = promised_share(plan)
    return prompt_saving(plan, block_size).share / promised if promised > 0 else 1.0
