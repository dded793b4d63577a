"""`vhserve ablate`: the flags of the ablation table, and how it is printed.

The run itself is in `calibrate.ablation.run`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from pydantic_settings import CliPositionalArg

from profiles.names import Granularity
from vhserve.commands.interrupted import can_be_continued
from vhserve.commands.ranking_option import AnyRanking

if TYPE_CHECKING:
    from calibrate.ablation.plans import Configuration
    from calibrate.ablation.results import Ablation
    from profiles.head_profile import HeadProfile


class Ablate(BaseModel):
    """Measure what heads are worth: accuracy with the most visual heads of each stage removed, and controls.

    Removes among early, middle and late layers the k heads with the highest scores, k others, k random ones and the k
    with the lowest scores, and compares each with the whole model on the same samples. An interrupted run continues
    where it stopped when it is started again with the same flags.
    """

    profile: CliPositionalArg[Path] = Field(description="head profile that `vhserve calibrate` wrote")
    model: str | None = Field(None, description="alias, Hub id or folder; the profile's own if not given")
    dataset: str = Field(
        "synthetic",
        description="`synthetic`, a .jsonl file, or a published dataset and where it is, such as pope:/data/pope",
    )
    split: str | None = Field(None, description="split of the dataset; `held_out` for synthetic if not given")
    families: list[str] | None = Field(None, description="question families, comma-separated; all if not given")
    rows: Literal["paper", "short"] = Field(
        "paper",
        description="rows of the table: all controls in every stage, or only in the late one, in a third of the time",
    )
    curve: bool = Field(
        False,
        description="accuracy over the share of heads instead: lowest scores first, random and highest first, in the "
        "late stage and in all",
    )
    k: list[str] | None = Field(
        None,
        description="numbers of heads to treat, or percentages of each stage's heads, comma-separated; 4,8,16 if not "
        "given, for a curve 12.5%,25%,… to 100%",
    )
    samples: PositiveInt = Field(1000, description="how many samples to measure on")
    rank_by: AnyRanking = Field(
        "score",
        description="what heads are ranked by; effect and gradient need a profile made with --effects, sparsemm and "
        "duo_attention one that they were imported into",
    )
    treatment: Literal["removed", "mean", "uniform", "text_only"] = Field(
        "removed",
        description="what is done to the heads: zero output, as when removed; mean output; uniform attention, as under "
        "the paper's mask; attention to text only",
    )
    block_size: PositiveInt | None = Field(
        None, description="image blocks that text-only heads don't see, in tokens; single image tokens if not given"
    )
    draws: PositiveInt = Field(3, description="random selections for each k")
    seed: NonNegativeInt = Field(0, description="seed of the choice of samples, and of the first random selection")
    granularity: Granularity | None = Field(
        None,
        description="treat query heads one by one, or all of a KV head together; kv_group for a grouped-query model "
        "if not given",
    )
    # Few enough for a layer of a small model to stay in a CPU's cache: with the demo model 8 beat 32 by half.
    batch_size: PositiveInt = Field(8, description="samples in one forward pass; does not change the result")
    together: PositiveInt | None = Field(
        None, description="selections of heads in one forward pass; 1 on CPUs and 8 on GPUs if not given"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the weights; auto is the checkpoint's on a GPU, float32 on CPUs"
    )
    device: str = Field("auto", description="auto (the first GPU, or the CPU where there is none), cpu, cuda or cuda:N")
    out: Path = Field(Path("ablation.json"), description="results to write")
    restart: bool = Field(False, description="discard the state of an interrupted run")
    json_: bool = Field(False, alias="json", description="print the results as one JSON document")
    figure: Path | None = Field(None, description="SVG file to draw a curve into")
    markdown: bool = Field(False, description="print the tables as Markdown")

    def cli_cmd(self) -> None:
        """Ablate, write the results, and print the tables."""
        from rich.console import Console

        from calibrate.ablation.plans import CURVE, SHORT, TABLE, configurations
        from calibrate.models.registry import find
        from profiles.files import check_writable, write_atomically
        from profiles.store import load_profile

        profile = load_profile(self.profile)
        check_writable(self.out)
        self._check_figure()
        shape = CURVE if self.curve else SHORT if self.rows == "short" else TABLE
        name = self.model or profile.model.name
        find(name)  # a wrong name is told before the seconds that importing torch takes
        granularity = self.granularity or ("kv_group" if profile.geometry.group_size > 1 else "query_head")
        chosen = configurations(
            profile,
            self.k or shape.budgets,
            shape=shape,
            draws=self.draws,
            seed=self.seed,
            granularity=granularity,
            how=self.treatment,
            rank_by=self.rank_by,
        )
        result = self._measure(profile, name, chosen)
        if self.figure is not None:
            from calibrate.ablation.figure import accuracy_curve

            write_atomically(self.figure, accuracy_curve(result))
        if self.json_:
            print(self.out.read_text(encoding="utf-8"), end="")
            return

        from calibrate.ablation.tables import drawn, family_grid, markdown, published_grid, share_grid, stage_grid

        grids = [share_grid(result)] if self.curve else [stage_grid(result), family_grid(result)]
        if (of_authors := published_grid(result)) is not None:
            grids.append(of_authors)
        if self.markdown:
            print("\n\n".join(map(markdown, grids)))
            return
        console = Console(highlight=False)
        console.print(*map(drawn, grids), sep="\n")
        skipped = f", {len(result.broken)} skipped as broken" if result.broken else ""
        console.print(f"Wrote {self.out}: {result.samples} samples{skipped}", markup=False, soft_wrap=True)

    def _check_figure(self) -> None:
        from profiles.errors import WrongValue
        from profiles.files import check_writable

        if self.figure is not None:
            if not self.curve:
                raise WrongValue("--figure draws a curve", expected="--curve with it", fix="give --curve")
            check_writable(self.figure)

    def _measure(self, profile: "HeadProfile", name: str, chosen: "list[Configuration]") -> "Ablation":
        from profiles.torchvision_import import ensure_torchvision

        ensure_torchvision()
        from calibrate.ablation.run import ablate
        from calibrate.datasets import open_dataset
        from calibrate.masking.masked_runs import MaskedRunSettings
        from calibrate.models.loading import load_model
        from profiles.planning.fit import check_fit

        dataset = open_dataset(
            self.dataset, samples=self.samples, seed=self.seed, split=self.split, families=self.families
        )
        loaded = load_model(name, self.dtype, self.device)
        check_fit(profile, loaded.ref, loaded.geometry)
        run = MaskedRunSettings(
            self.out, self.batch_size, self.restart, block_size=self.block_size, together=self.together
        )
        with can_be_continued(self.out):
            return ablate(loaded, profile, dataset, chosen, run)
