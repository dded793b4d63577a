"""`vhserve plan`: the flags, and the table of what the plan will save.

How heads are chosen is in `profiles.planning.planner`, the arithmetic in `profiles.planning.savings` and, with the
padding that serving costs, in `vhserve.engine.kv_cache.saving`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo
from pydantic_settings import CliPositionalArg

from profiles.names import CompensationMethod, Granularity, Select, StageOrAll
from vhserve import option_types as words
from vhserve.commands.ranking_option import AUTO, AutoRanking
from vhserve.devices import BLOCK_SIZES, LABELS, Device, check_block_size, serving_device
from vhserve.option_types import BlockSize, CountOrZero, Percentage, Seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from profiles.head_profile import HeadProfile
    from profiles.planning.summary import Summary
    from profiles.pruning_plan import PruningPlan
    from profiles.treatments import Phase, Treatment
    from vhserve.engine.kv_cache.saving import PromptSaving

_RANKED_BY_SCORE = (
    "ranked by the paper's score, for the profile has no effects: it says how much a head looks at the image, not what "
    "answers lose without it; calibrate without --no-effects to rank by effect"
)

_MEASURED = ("effect", "gradient")
_NOT_OF_GROUPS = (
    "the profile has no {} of KV groups: a group is worth the mean of its query heads, though these may cancel; "
    "calibrate again to measure groups"
)

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def _is_budget(text: str, info: ValidationInfo) -> str:
    from profiles.planning.budget import parse_budget

    parse_budget(text, (info.field_name or "").replace("_", "-"))
    return text


Budget = Annotated[str, AfterValidator(_is_budget)]


class Plan(BaseModel):
    """Choose which heads to prune by a head profile, write the pruning plan, and say what it will save.

    A budget counts query heads: a number, or a percentage of the stage's heads. The lowest ranked heads go first: by
    effect, those that answers lose least without; by score, the least visual ones. `vhserve plan show PLAN` shows what
    a plan does.
    """

    profile: CliPositionalArg[Path] = Field(description=words.PROFILE)
    out: Path | None = Field(None, description="plan to write; plan.json beside the profile if not given")
    remove: Budget | None = Field(None, description=words.REMOVE)
    text_only: Budget | None = Field(None, description=words.TEXT_ONLY)
    thinned_8: Budget | None = Field(None, description=words.THINNED.format(8))
    thinned_4: Budget | None = Field(None, description=words.THINNED.format(4))
    thinned_2: Budget | None = Field(None, description=words.THINNED.format(2))
    evict: Budget | None = Field(None, description=words.EVICT)
    evict_8: Budget | None = Field(None, description=words.EVICT_TO.format(8))
    evict_4: Budget | None = Field(None, description=words.EVICT_TO.format(4))
    evict_2: Budget | None = Field(None, description=words.EVICT_TO.format(2))
    exit_layer: CountOrZero | None = Field(None, description=words.EXIT_LAYER)
    stage: StageOrAll = Field("late", description=words.STAGE)
    select: Select = Field("bottom", description=words.SELECT)
    rank_by: AutoRanking = Field(
        AUTO,
        description="what heads are ranked by; auto is effect where the profile has it, else score; effect is what "
        "treating heads would do to the answers, and gradient Michel et al.'s importance, both from a profile made "
        "without --no-effects; sparsemm and duo_attention are imported",
    )
    protect_top: Percentage = Field(10.0, description=words.PROTECT_TOP)
    seed: Seed = Field(0, description="seed of the random selection")
    granularity: Granularity | None = Field(None, description=words.GRANULARITY)
    compensation: CompensationMethod = Field(
        "none", description="what replaces a removed head's output: zero, or its mean in the profile"
    )
    block_size: BlockSize | None = Field(None, description=words.BLOCK_SIZE)
    serve_on: Literal["auto", "cpu", "cuda"] = Field("auto", description=words.SERVE_ON)
    dtype: Literal["float32", "float16", "bfloat16"] = Field("bfloat16", description=words.SAVINGS_DTYPE)
    image_tokens: CountOrZero | None = Field(None, description=words.IMAGE_TOKENS)
    json_: bool = Field(False, alias="json", description=words.JSON)

    def cli_cmd(self) -> None:
        """Write the plan, then print its numbers."""
        import json
        import sys

        from rich.console import Console

        from profiles.files import check_output
        from profiles.planning.budget import heads_of
        from profiles.planning.planner import make_plan
        from profiles.planning.rankings import default_ranking
        from profiles.planning.summary import summarise
        from profiles.pruning_plan import PLAN_FORMAT
        from profiles.store import load_profile, save
        from profiles.treatments import PHASES, budgeted
        from vhserve.engine.kv_cache.capacity import groups_of
        from vhserve.engine.kv_cache.saving import prompt_saving

        device: Device = serving_device() if self.serve_on == "auto" else self.serve_on
        block_size = self.block_size or BLOCK_SIZES[device]
        check_block_size(block_size, device, elsewhere=True)
        profile = load_profile(self.profile)
        self._check_budget_given()
        out = self.out or self.profile.with_name("plan.json")
        check_output(out, document=PLAN_FORMAT, inputs=[self.profile])
        geometry = profile.geometry
        granularity = self.granularity or geometry.granularity
        rank_by = default_ranking(profile) if self.rank_by == AUTO else self.rank_by
        plan = make_plan(
            profile,
            budgets={
                one.name: heads_of(self._budget(one) or "0", one.flag, geometry, self.stage, granularity)
                for one in budgeted()
            },
            stage=self.stage,
            select=self.select,
            protect_top=self.protect_top,
            seed=self.seed,
            granularity=granularity,
            compensation=self.compensation,
            rank_by=rank_by,
            block_size=block_size,
            exit_layer=self.exit_layer,
        )
        summary = summarise(plan, self.dtype, DTYPE_BYTES[self.dtype], block_size, self.image_tokens)
        savings = {phase: prompt_saving(plan, block_size, phase, self.image_tokens) for phase in PHASES}
        groups = sum(groups_of(plan, block_size).of.values())
        save(plan, out)
        if self.rank_by == AUTO and rank_by != "effect":
            print(f"vhserve: note: {_RANKED_BY_SCORE}", file=sys.stderr)
        if summary["heads_together"] > 1 and rank_by in _MEASURED and not profile.rankings[rank_by].group_tables:
            print(f"vhserve: note: {_NOT_OF_GROUPS.format(rank_by)}", file=sys.stderr)
        for note in _block_notes(plan, profile, summary, device):
            print(f"vhserve: note: {note}", file=sys.stderr)
        if self.json_:
            served = {
                "device": device,
                "concurrency": savings["reply"].concurrency,
                "concurrency_in_prefill": savings["prompt"].concurrency,
                "kv_cache_groups": groups,
            }
            print(
                json.dumps({"plan": str(out), "ranked_by": rank_by, "measured": False, **summary, **served}, indent=2)
            )
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(heads_table(summary), savings_table(summary, savings, groups, device), sep="\n")
        units = "Heads" if summary["heads_together"] == 1 else "KV groups"
        console.print(f"{units} chosen by {rank_by.replace('_', ' ')}", markup=False)
        measure = f"serve it, then `vhserve evaluate --base-url URL --attach {out}`"
        console.print(f"Not measured yet: {measure}", markup=False, soft_wrap=True)

    def _check_budget_given(self) -> None:
        from profiles.errors import WrongValue
        from profiles.treatments import budgeted

        if self.exit_layer is None and all(self._budget(one) is None for one in budgeted()):
            flags = ", ".join(f"--{one.flag}" for one in budgeted())
            raise WrongValue(
                "no number of heads is given",
                expected=f"one or more of {flags}",
                fix="give --remove 8 (or 0 for an empty plan)",
            )

    def _budget(self, treatment: "Treatment") -> str | None:
        """What was given for a treatment's flag."""
        given: str | None = getattr(self, treatment.budget or "")
        return given


def heads_table(summary: "Summary") -> "Table":
    """Heads by stage and treatment; of a plan by KV groups, groups."""
    from rich.markup import escape

    from calibrate.terminal_tables import FoldedTable
    from profiles.geometry import unit_words
    from profiles.treatments import FULL, TREATMENTS

    size = summary["heads_together"]
    table = FoldedTable(title=f"Plan for {escape(summary['model'])}: {unit_words(size)} by stage")
    table.add_column("stage")
    stages = summary["heads"].values()
    treatments = [name for name in TREATMENTS if name == FULL.name or any(counts[name] for counts in stages)]
    for treatment in treatments:
        table.add_column(TREATMENTS[treatment].label, justify="right")
    for stage, counts in summary["heads"].items():
        table.add_row(stage, *(str(counts[treatment] // size) for treatment in treatments))
    table.add_section()
    totals = (sum(counts[treatment] // size for counts in summary["heads"].values()) for treatment in treatments)
    table.add_row("all", *map(str, totals))
    return table


def _block_notes(plan: "PruningPlan", profile: "HeadProfile", summary: "Summary", device: Device) -> list[str]:
    """What the user should know of heads that drop image blocks, with KV blocks of this size."""
    if not plan.has_partial_heads:
        return []
    from profiles.planning.rankings import stand_in
    from profiles.treatments import TREATMENTS
    from vhserve.engine.kv_cache.saving import costly_treatments

    notes, block_size, geometry = [], summary["block_size"], plan.geometry
    nothing = summary["kv_bytes_per_image_token"]["pruned"] >= summary["kv_bytes_per_token"]["pruned"]
    if nothing:
        notes.append(
            "heads that drop image blocks save nothing: the "
            f"{summary['prompt']['image_tokens']:,} tokens of an image fill no KV block of {block_size} tokens; "
            f"{_smaller_blocks(block_size, device)}"
        )
    ranking = profile.rankings[plan.selection.rank_by]
    others: dict[str, list[str]] = {}
    for one in TREATMENTS.values():
        if plan.heads(one.name) and (other := stand_in(ranking, one.name)) is not None:
            others.setdefault(TREATMENTS[other].label, []).append(one.label)
    for other, labels in others.items():
        notes.append(
            f"no {plan.selection.rank_by.replace('_', ' ')} of heads that are {' or '.join(labels)}: chosen by that of "
            f"{other} heads, which lose more of the image"
        )
    for name in costly_treatments(plan, block_size, summary["prompt"]["image_tokens"]) if not nothing else ():
        one = TREATMENTS[name]
        more = ", or give it more heads" if len(plan.heads(name)) < geometry.layers * geometry.query_heads else ""
        notes.append(
            f"as many prompts fit with the {len(plan.heads(name))} {one.label} heads left full: each treatment has KV "
            "cache groups of its own, whose padding takes more than these heads save; leave out "
            f"--{one.flag}{more}"
        )
    if "text_only" in ranking.tables and (ranking.block_size or 1) != block_size:
        notes.append(
            f"the profile's {plan.selection.rank_by.replace('_', ' ')} of text-only heads is for KV blocks of "
            f"{ranking.block_size or 1} tokens, the plan for {block_size}; calibrate with --block-size {block_size}"
        )
    return notes


def _smaller_blocks(block_size: int, device: Device) -> str:
    """What to do about KV blocks that are larger than an image."""
    larger = "see with --image-tokens what larger images save"
    if block_size > BLOCK_SIZES[device]:
        return f"give a smaller --block-size, or {larger}"
    smaller = [f"serve on {LABELS[one]} (--serve-on {one})" for one, size in BLOCK_SIZES.items() if size < block_size]
    return " or ".join([*smaller, larger])


def savings_table(summary: "Summary", savings: "Mapping[Phase, PromptSaving]", groups: int, device: Device) -> "Table":
    """KV cache, weights, how many prompts fit, and the KV cache groups that it takes, as served on a device."""
    from calibrate.terminal_tables import FoldedTable

    prompt, usual = summary["prompt"], summary["usual_prompt"]["image_tokens"]
    blocks = f"KV blocks of {summary['block_size']} tokens"
    title = f"What it saves on {LABELS[device]}, in {summary['dtype']} and {blocks}"
    table = FoldedTable(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for kind, kv in (("text", summary["kv_bytes_per_token"]), ("image", summary["kv_bytes_per_image_token"])):
        change = kv["pruned"] / kv["baseline"] - 1
        table.add_row(f"KV cache per {kind} token", f"{kv['baseline']:,} to {kv['pruned']:,} bytes ({change:+.1%})")
    table.add_row("weights not loaded", f"{summary['weight_bytes_saved']:,} bytes")
    image = f"{usual:,}, the model's usual"
    if prompt["image_tokens"] != usual:
        image = f"{prompt['image_tokens']:,}; the model's usual: {usual:,}"
    table.add_row("tokens of an image", image)
    request = f"prompts of {prompt['image_tokens']:,} image + {prompt['text_tokens']} text tokens"
    if (exit_ := summary["image_exit"]) is not None:
        where = f"in front of layer {exit_['layer']} of {exit_['layers']}"
        table.add_row("tokens of image blocks leave", f"{where}: {exit_['prefill_saved']:.1%} of a prompt's layers")
    answered, computed = savings["reply"].concurrency, savings["prompt"].concurrency
    table.add_row(request, f"{answered:.3f} times as many fit")
    if computed != answered:
        table.add_row("while they are computed", f"{computed:.3f} times as many fit")
    if groups > 1:
        table.add_row("KV cache groups, each of which takes time in every step", f"{groups} (1 without the plan)")
    return table
