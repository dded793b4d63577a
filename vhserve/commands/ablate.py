"""`vhserve ablate`: the flags of the ablation table, and how it is printed.

The run itself is in `calibrate.ablation.run`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from profiles.names import Ablated, Granularity
from vhserve.commands.measuring import can_be_continued, check_before_loading, open_masked_run
from vhserve.commands.options import MaskedRunOptions
from vhserve.commands.ranking_option import AnyRanking
from vhserve.notes import print_note
from vhserve.option_types import GRANULARITY, Draws


class Ablate(MaskedRunOptions):
    """Measure what heads are worth: accuracy with the most visual heads of each stage removed, and controls.

    Removes among early, middle and late layers the k heads with the highest scores, k others, k random ones and the k
    with the lowest scores, and compares each with the whole model on the same samples. An interrupted run continues
    where it stopped when it is started again with the same flags.
    """

    out: Path = Field(Path("ablation.json"), description="results to write")
    rows: Literal["paper", "short"] = Field(
        "paper",
        description="rows of the table: all controls in every stage, or only in the late one, in a third of the time; "
        "of a curve, short leaves lowest scores first and random, over all layers",
    )
    curve: bool = Field(
        False,
        description="accuracy over the share of heads instead: lowest scores first, random and highest first, in the "
        "late stage and in all",
    )
    k: list[str] | None = Field(
        None,
        description="numbers of heads to treat, or percentages of each stage's heads, comma-separated; 4,8,16 if not "
        "given, or 1, 2 and 4 KV groups of a grouped-query model; for a curve 12.5%,25%,… to 100%",
    )
    rank_by: AnyRanking = Field(
        "score",
        description="what heads are ranked by; effect and gradient need a profile made without --no-effects, sparsemm "
        "and duo_attention one that they were imported into",
    )
    treatment: Ablated = Field(
        "removed",
        description="what is done to the heads: zero output, as when removed; mean output; uniform attention, as under "
        "the paper's mask; attention to text only, or to a part of the image; with evict, in replies only, which takes "
        "answers of several tokens",
    )
    draws: Draws = 3
    granularity: Granularity | None = Field(None, description=GRANULARITY)
    figure: Path | None = Field(None, description="SVG file to draw a curve into")
    markdown: bool = Field(False, description="print the tables as Markdown")

    def cli_cmd(self) -> None:
        """Ablate, write the results, and print the tables."""
        from rich.console import Console

        from calibrate.ablation.plans import CURVE, SHORT, SHORT_CURVE, TABLE, configurations
        from profiles.files import write_atomically
        from profiles.store import load_profile

        profile = load_profile(self.profile)
        whole, short = (CURVE, SHORT_CURVE) if self.curve else (TABLE, SHORT)
        shape = short if self.rows == "short" else whole
        name = self.model or profile.model.name
        revision = profile.model.revision
        check_before_loading(name, self._outputs(), [self.profile, self.dataset], preferred=revision)
        granularity = self.granularity or profile.geometry.granularity
        chosen = configurations(
            profile,
            self.k or shape.budgets_of(profile.geometry, granularity),
            shape=shape,
            draws=self.draws,
            seed=self.seed,
            granularity=granularity,
            how=self.treatment,
            rank_by=self.rank_by,
        )
        loaded, dataset, run = open_masked_run(self, profile, name, self.treatment)
        from calibrate.ablation.run import ablate

        with can_be_continued(self.out):
            result = ablate(loaded, profile, dataset, chosen, run)
        if (line := result.never_right()) is not None:
            print_note(line, "warning")
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
        console = Console(highlight=False, soft_wrap=True)
        console.print(*map(drawn, grids), sep="\n")
        skipped = f", {len(result.broken)} skipped as broken" if result.broken else ""
        console.print(f"{result.samples} samples{skipped}", markup=False)

    def _outputs(self) -> dict[Path, str | None]:
        from profiles.errors import WrongValue

        results: dict[Path, str | None] = {self.out: "vhserve.ablation"}
        if self.figure is None:
            return results
        if not self.curve:
            raise WrongValue("--figure draws a curve", expected="--curve with it", fix="give --curve")
        return results | {self.figure: None}
