"""`vhserve plan show`: the flags, and what is printed of a plan.

Maps and tables are in `vhserve.report.plan_views`, the arithmetic in `profiles.planning.savings`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from vhserve.commands.plan import DTYPE_BYTES, heads_table, savings_table
from vhserve.option_types import JSON


class PlanShow(BaseModel):
    """Show what a pruning plan does: a map of its heads, how they were chosen, what it saves, and what was measured."""

    plan: CliPositionalArg[Path] = Field(description="pruning plan, as `vhserve plan` writes it")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("bfloat16", description="dtype to compute the savings for")
    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Print the plan's map and numbers."""
        import json

        from rich.console import Console

        from profiles.planning.summary import summarise
        from profiles.store import load_plan
        from vhserve.report.plan_views import chosen_by, measured_table, plan_map

        plan = load_plan(self.plan)
        summary = summarise(plan, self.dtype, DTYPE_BYTES[self.dtype])
        if self.json_:
            own = plan.model_dump(mode="json", include={"selection", "granularity", "treatments", "measured"})
            print(json.dumps({"plan": str(self.plan), **summary, **own}, indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"{plan.model.name}, revision {plan.model.revision}; plan {plan.digest}", markup=False)
        console.print(plan_map(plan), chosen_by(plan), "", sep="\n", markup=False)
        console.print(heads_table(summary), savings_table(summary), sep="\n")
        measured = measured_table(plan)
        if measured is None:
            console.print(
                "Never measured: serve it, then `vhserve evaluate --base-url URL --attach PLAN`", markup=False
            )
        else:
            console.print(measured)
