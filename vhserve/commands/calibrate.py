"""`vhserve calibrate`: the flags, and the tables of what was measured.

The run itself is in `calibrate.scoring.calibration`.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliDualFlag

from profiles.names import LayerFunction
from vhserve.commands.measuring import can_be_continued, check_before_loading, open_dataset, open_model
from vhserve.commands.options import (
    DatasetOption,
    ExecutionOptions,
    FamiliesOption,
    ModelOption,
    ResultOptions,
    SampleOptions,
)
from vhserve.devices import BLOCK_SIZES, serving_device
from vhserve.option_types import BLOCK_SIZE, SPLIT, BlockSize, Samples

if TYPE_CHECKING:
    from rich.table import Table

    from profiles.head_profile import HeadProfile

TOP = 10


class Calibrate(ResultOptions, ExecutionOptions, FamiliesOption, SampleOptions, DatasetOption, ModelOption):
    """Measure how much each attention head of a vision-language model looks at the image, and write a head profile.

    An interrupted run continues where it stopped when it is started again with the same flags. Under torchrun the
    samples are shared among the processes.
    """

    split: str = Field("choosing", description=SPLIT)
    samples: Samples = 256
    out: Path = Field(Path("profile.json"), description="head profile to write")
    layer_function: LayerFunction = Field("inverse", description="factor of the head score: 1 / (layer + 1), or 1")
    effects: CliDualFlag[bool] = Field(
        True,
        description="measure what removing each head, and hiding the image from it, would do to the answers, which is "
        "what plans are best made by; takes a gradient, and several times the time and memory",
    )
    block_size: BlockSize | None = Field(None, description=BLOCK_SIZE)

    def cli_cmd(self) -> None:
        """Calibrate, write the profile, and print what stands out in it."""
        from rich.console import Console

        from profiles.head_profile import PROFILE_FORMAT

        check_before_loading(self.model, {self.out: PROFILE_FORMAT}, [self.dataset], revision=self.revision)
        profile = self._measure()
        if int(os.environ.get("RANK", "0")):
            return
        if self.json_:
            import json

            print(json.dumps({"profile": str(self.out), **summarise(profile)}, indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(_stage_table(profile), head_table(profile), sep="\n")
        skipped = f", {profile.samples_skipped} skipped as broken" if profile.samples_skipped else ""
        console.print(f"{profile.samples} samples{skipped}", markup=False)

    def _measure(self) -> "HeadProfile":
        dataset = open_dataset(self.dataset, self)

        from calibrate.runs.processes import init_distributed
        from calibrate.scoring.calibration import CalibrationSettings, calibrate

        run = CalibrationSettings(
            self.out,
            self.batch_size,
            self.restart,
            seed=self.seed,
            layer_function=self.layer_function,
            effects=self.effects,
            block_size=self.block_size or BLOCK_SIZES[serving_device()],
        )
        with init_distributed() as processes:
            loaded = open_model(self.model, self, device=processes.device(self.device), revision=self.revision)
            with can_be_continued(self.out, shown=processes.is_main):
                return calibrate(loaded, dataset, run, processes)


def summarise(profile: "HeadProfile") -> dict[str, Any]:
    """What stands out in a profile: means by stage, and the heads, or KV groups, with the highest scores."""
    from profiles.geometry import stage_layers, stage_of
    from profiles.names import STAGES
    from profiles.planning.rankings import group_ranking

    layers, size = profile.geometry.layers, profile.geometry.group_size
    tables = {name: group_ranking(profile, name).tolist() for name in ("image_weight", "concentration", "score")}
    stages = {}
    for stage in STAGES:
        rows = stage_layers(stage, layers)
        stages[stage] = {name: _mean([table[layer] for layer in rows]) for name, table in tables.items()}
    order = sorted((-score, i, j) for i, row in enumerate(tables["score"]) for j, score in enumerate(row))[:TOP]
    top = [
        {
            "layer": i,
            **({"head": j} if size == 1 else {"group": j, "heads": list(profile.geometry.group(j))}),
            "stage": stage_of(i, layers),
            **{name: table[i][j] for name, table in tables.items()},
        }
        for _, i, j in order
    ]
    return {
        "digest": profile.digest,
        "model": profile.model.name,
        "revision": profile.model.revision,
        "samples": profile.samples,
        "samples_skipped": profile.samples_skipped,
        "samples_with_box": profile.samples_with_box,
        "stages": stages,
        "top": top,
    }


def _mean(rows: list[list[float]]) -> float | None:
    """Mean of all entries; `None` for a stage without layers."""
    values = [value for row in rows for value in row]
    return sum(values) / len(values) if values else None


def _stage_table(profile: "HeadProfile") -> "Table":
    from rich.markup import escape

    from calibrate.terminal_tables import FoldedTable

    table = FoldedTable(title=f"{escape(profile.model.name)}: means by stage")
    table.add_column("stage")
    for name in ("image weight", "concentration", "score"):
        table.add_column(name, justify="right")
    for stage, means in summarise(profile)["stages"].items():
        table.add_row(stage, *("-" if value is None else f"{value:.3f}" for value in means.values()))
    return table


def head_table(profile: "HeadProfile") -> "Table":
    """The heads with the highest scores, or the KV groups."""
    from calibrate.terminal_tables import FoldedTable
    from profiles.geometry import unit_words
    from vhserve.report.profile_views import place_cells, place_names

    size = profile.geometry.group_size
    table = FoldedTable(keys=2, title=f"Most visual {unit_words(size)}")
    for name in place_names(size):
        table.add_column(name, justify="right")
    table.add_column("stage")
    for name in ("image weight", "concentration", "score"):
        table.add_column(name, justify="right")
    for head in summarise(profile)["top"]:
        numbers = (f"{head[name]:.3f}" for name in ("image_weight", "concentration", "score"))
        place = place_cells(head["layer"], head["head"] if size == 1 else head["group"], size)
        table.add_row(*place, head["stage"], *numbers)
    return table
