"""Passes a plan to vLLM's processes: its content, in vLLM's `additional_config`.

vLLM hashes `additional_config` into the key of its compile cache, so the plan's content must be there and not its path:
another plan has other tensor shapes. Beside it stands the release of vhserve. Which layers are cut, and how, is decided
where the model is built, which is not among the sources that vLLM compares before it takes a compiled graph from the
cache. The plan's `measured` is left out, since serving does not depend on it. Does not know what a plan is used for.
"""

from typing import Any, Final

import vhserve
from profiles.image_spans import OLD_RULE, SpanRule
from profiles.pruning_plan import PruningPlan
from profiles.store import plan_from_dict
from vhserve.errors import PlanAltered, PlanMissing

KEY: Final = "vhserve"
"""Key of `additional_config` that holds the packed plan."""


class PackedPlan(dict[str, Any]):
    """A packed plan, with a short repr: vLLM logs its arguments, and a plan lists every head."""

    def __repr__(self) -> str:
        return f"{{'digest': {self.get('digest')!r}, 'plan': …}}"


def pack_plan(plan: PruningPlan) -> PackedPlan:
    """The value to put under `KEY` in `additional_config`."""
    content = plan.model_copy(update={"measured": []}).model_dump(mode="json")
    return PackedPlan(digest=plan.digest, plan=content, release=vhserve.__version__)


def unpack_plan(additional_config: Any) -> PruningPlan | None:
    """The plan in an `additional_config`, or None where there is none.

    Raises
    ------
    PlanAltered
        The digest beside the plan is not the digest of its content.
    UserError
        Whatever `profiles.store.plan_from_dict` finds wrong.
    """
    packed = additional_config.get(KEY) if isinstance(additional_config, dict) else None
    if packed is None:
        return None
    plan = plan_from_dict(packed["plan"], source=f"additional_config.{KEY}.plan")
    if plan.digest != packed.get("digest"):
        raise PlanAltered(
            f"the plan in additional_config.{KEY} has digest {plan.digest}, not {packed.get('digest')}",
            expected="a plan as `vhserve serve` packs it",
            fix="pass the plan with --plan",
        )
    return plan


def packed_span_rule(additional_config: Any) -> SpanRule:
    """The rule of image spans of the plan in an `additional_config`, without reading the rest of it."""
    given = additional_config[KEY]["plan"].get("image_spans")
    return OLD_RULE if given is None else SpanRule.model_validate(given)


def require_plan(additional_config: Any) -> PruningPlan:
    """The plan in an `additional_config`.

    Raises
    ------
    PlanMissing
        There is none.
    """
    plan = unpack_plan(additional_config)
    if plan is None:
        raise PlanMissing(
            f"vhserve's model class was asked for, but additional_config has no {KEY!r}",
            expected="a plan",
            fix="start the server with `vhserve serve MODEL --plan plan.json`",
        )
    return plan
