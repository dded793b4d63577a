"""`vhserve plan show`: the flags, and what is printed of a plan.

Maps and tables are in `vhserve.report.plan_views`, the arithmetic in `profiles.planning.savings`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from vhserve import option_types as words
from vhserve.commands.plan import DTYPE_BYTES, heads_table, savings_table
from vhserve.devices import Device, block_size_on, serving_device
from vhserve.notes import print_note
from vhserve.option_types import CountOrZero


class PlanShow(BaseModel):
    """Show what a pruning plan does: a map of its heads, how they were chosen, what it saves, and what was measured."""

    plan: CliPositionalArg[Path] = Field(description="pruning plan, as `vhserve plan` writes it")
    serve_on: Literal["auto", "cpu", "cuda"] = Field("auto", description=words.SERVE_ON)
    dtype: Literal["float32", "float16", "bfloat16"] = Field("bfloat16", description=words.SAVINGS_DTYPE)
    image_tokens: CountOrZero | None = Field(None, description=words.IMAGE_TOKENS)
    json_: bool = Field(False, alias="json", description=words.JSON)

    def cli_cmd(self) -> None:
        """Print the plan's map and numbers."""
        import json

        from rich.console import Console

        from profiles.planning.summary import summarise
        from profiles.store import load_plan
        from profiles.treatments import PHASES
        from vhserve.engine.kv_cache.capacity import groups_of
        from vhserve.engine.kv_cache.saving import prompt_saving
        from vhserve.report.plan_views import chosen_by, measured_nothing, measured_table, plan_map

        plan = load_plan(self.plan)
        device: Device = serving_device() if self.serve_on == "auto" else self.serve_on
        block_size = block_size_on(device, plan.block_size)
        summary = summarise(plan, self.dtype, DTYPE_BYTES[self.dtype], block_size, self.image_tokens)
        savings = {phase: prompt_saving(plan, block_size, phase, self.image_tokens) for phase in PHASES}
        groups = sum(groups_of(plan, block_size).of.values())
        if self.json_:
            own = plan.model_dump(mode="json", include={"selection", "granularity", "treatments", "measured"})
            served = {
                "device": device,
                "concurrency": savings["reply"].concurrency,
                "concurrency_in_prefill": savings["prompt"].concurrency,
                "kv_cache_groups": groups,
            }
            print(json.dumps({"plan": str(self.plan), **summary, **served, **own}, indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"{plan.model.name}, revision {plan.model.revision}; plan {plan.digest}", markup=False)
        console.print(plan_map(plan))
        console.print(f"{chosen_by(plan)}\n", markup=False, soft_wrap=False, no_wrap=False, overflow="fold")
        console.print(heads_table(summary), savings_table(summary, savings, groups, device), sep="\n")
        measured = measured_table(plan)
        if measured is None:
            console.print(
                "Never measured: serve it, then `vhserve evaluate --base-url URL --attach PLAN`", markup=False
            )
        else:
            console.print(measured)
        if (line := measured_nothing(plan)) is not None:
            print_note(line, "warning")
