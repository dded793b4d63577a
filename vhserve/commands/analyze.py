"""`vhserve analyze`: the flags, and which files are written.

What is analysed is in `calibrate.analysis`; the page is `vhserve.report.analysis_page`'s.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vhserve.commands.measuring import (
    can_be_continued,
    check_before_loading,
    decoder_sizes,
    model_ref,
    open_dataset,
    open_model,
    say_overlap,
)
from vhserve.commands.options import (
    DatasetsOption,
    ExecutionOptions,
    FamiliesOption,
    ModelOption,
    ResultOptions,
    SampleOptions,
)
from vhserve.notes import print_note
from vhserve.option_types import SPLIT, Draws, Samples

if TYPE_CHECKING:
    from calibrate.ablation.results import Ablation
    from calibrate.analysis.document import Report
    from calibrate.analysis.tallies import Measured
    from calibrate.datasets import DividedDataset
    from calibrate.models.loading import LoadedModel
    from profiles.head_profile import HeadProfile


@dataclass(frozen=True)
class Files:
    """Where everything goes: the page, and the numbers beside it."""

    page: Path
    document: Path
    ablation: Path
    prefix: str

    @classmethod
    def of(cls, out: Path) -> "Files":
        """A folder for all of them; or a page, whose stem the others' names begin with."""
        if out.suffix != ".html":
            return cls(out / "report.html", out / "analysis.json", out / "ablation.json", "")
        stem = out.stem
        return cls(out, out.with_name(f"{stem}.json"), out.with_name(f"{stem}-ablation.json"), f"{stem}-")

    def table(self, name: str) -> Path:
        """The CSV file of a section."""
        return self.page.with_name(f"{self.prefix}{name}.csv")


class Analyze(ResultOptions, ExecutionOptions, FamiliesOption, SampleOptions, DatasetsOption, ModelOption):
    """Look at where a model's attention heads look, as the paper does, and whether its findings hold.

    Writes one page with figures, and the numbers beside it as CSV and JSON: image and box weight, plain against drawn
    boxes, right against wrong answers, weight against concentration, logit lens, similarity of question families and
    models, and the ablation table. An interrupted run continues where it stopped when it is started again with the
    same flags.
    """

    split: str = Field("choosing", description=f"{SPLIT}; heads are ablated on the other half")
    samples: Samples = Field(1000, description="how many samples of each dataset to measure on")
    out: Path = Field(
        Path("analysis"), description="folder to write report.html and the numbers into, or an .html file"
    )
    variants: list[Path] = Field([], description="head profiles of variants of the model, to compare with")
    others: list[Path] = Field([], description="head profiles of models of other families, to compare with")
    ablation: Path | None = Field(
        None, description="results of `vhserve ablate` to show; the table is measured if not given"
    )
    rankings: Path | None = Field(None, description="comparison of rankings to show, as `vhserve rankings` writes it")
    ablation_samples: Samples = Field(1000, description="how many samples of each dataset to ablate on, at most")
    k: list[str] = Field(
        ["4", "8", "16"],
        description="numbers of heads to ablate, or percentages of each stage's heads, comma-separated",
    )
    draws: Draws = 3
    no_ablation: bool = Field(False, description="leave the ablation table out, which takes most of the time")

    def cli_cmd(self) -> None:
        """Analyse, write page and numbers, and print what becomes of the findings."""
        from rich.console import Console

        from calibrate.analysis.document import FORMAT
        from profiles.store import load_profile

        files = Files.of(self.out)
        # A folder is made once there is something to put into it; until then its place must be free.
        outputs: dict[Path, str | None] = {self.out: None}
        if files.page.parent.is_dir():
            outputs = {files.page: None, files.document: FORMAT}
        measures_ablation = not self.no_ablation and self.ablation is None
        if measures_ablation and files.page.parent.is_dir():
            outputs[files.ablation] = "vhserve.ablation"
        check_before_loading(self.model, outputs, self._inputs(), revision=self.revision)
        if measures_ablation and "k" in self.model_fields_set:
            self._check_k()
        variants = {path.stem: load_profile(path) for path in self.variants}
        others = {path.stem: load_profile(path) for path in self.others}
        report = self._analyse(files, variants, others)
        if self.json_:
            print(files.document.read_text(encoding="utf-8"), end="")
            return
        from rich.markup import escape

        from calibrate.terminal_tables import FoldedTable

        table = FoldedTable(title=escape(report.title), show_lines=True)
        table.add_column("finding of the paper")
        table.add_column("here")
        for finding in report.findings:
            table.add_row(escape(finding.title), escape(finding.verdict))
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        console.print(report.lead, markup=False)

    def _inputs(self) -> list[Path | str]:
        given = [path for path in (self.ablation, self.rankings) if path is not None]
        return [*self.dataset, *self.variants, *self.others, *given]

    def _check_k(self) -> None:
        from profiles.planning.budget import check_budgets

        sizes = decoder_sizes(self.model, self.revision)
        check_budgets(self.k, "k", sizes, "kv_group" if sizes.group_size > 1 else "query_head")

    def _make_folder(self, files: Files) -> None:
        from profiles.errors import FileUnwritable

        try:
            files.page.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FileUnwritable(
                f"cannot make the folder {files.page.parent}: {error.strerror}",
                expected="a folder, or a path where one can be made",
                fix="give another --out",
            ) from error

    def _analyse(self, files: Files, variants: "dict[str, HeadProfile]", others: "dict[str, HeadProfile]") -> "Report":
        dataset = self._dataset()

        from calibrate.analysis.ablating import load_ablation
        from calibrate.analysis.accuracy_section import never_right
        from calibrate.analysis.measure import analysis_loop, measure
        from calibrate.analysis.rankings_section import rankings_section
        from calibrate.analysis.report import make_report
        from calibrate.runs.settings import RunSettings, execution
        from profiles.files import write_atomically
        from profiles.planning.fit import check_model

        earlier = None if self.ablation is None else load_ablation(self.ablation)
        if earlier is not None:
            revision = earlier.model.revision
            check_model("ablation", earlier.model, model_ref(self.model, like=revision, revision=self.revision))
        more = [] if self.rankings is None else [rankings_section(self.rankings)]
        if earlier is None and not self.no_ablation:
            self._check_k()
        loaded = open_model(self.model, self, revision=self.revision)
        self._make_folder(files)
        loop = analysis_loop(loaded, dataset, RunSettings(files.document, self.batch_size, self.restart))
        with can_be_continued(self.out):
            measured = measure(loop)
            self._warn(never_right(measured))
            ablation = earlier or self._ablation(files, loaded, dataset, measured)
        if ablation is not None:
            self._warn(ablation.never_right())
        settings = self._settings() | execution(loaded)
        report = make_report(
            loaded, dataset, measured, ablation=ablation, variants=variants, others=others, more=more, settings=settings
        )
        self._write(files, report)
        write_atomically(files.document, report.document())
        loop.discard_state()
        return report

    @staticmethod
    def _warn(line: str | None) -> None:
        if line is not None:
            print_note(line, "warning")

    def _settings(self) -> dict[str, Any]:
        """Flags that the numbers depend on; of files their names, for folders are this machine's."""
        flags = self.model_dump(exclude={"out", "restart", "json_"}, exclude_defaults=True)
        return {
            name: [one.name if isinstance(one, Path) else one for one in value]
            if isinstance(value, list)
            else value.name
            if isinstance(value, Path)
            else value
            for name, value in flags.items()
        } | {"samples": self.samples, "seed": self.seed}

    def _dataset(self) -> "DividedDataset":
        opened = [open_dataset(name, self) for name in self.dataset]

        from calibrate.analysis.concatenated import ConcatenatedDataset

        return opened[0] if len(opened) == 1 else ConcatenatedDataset(opened)

    def _ablation(
        self, files: Files, loaded: "LoadedModel", dataset: "DividedDataset", measured: "Measured"
    ) -> "Ablation | None":
        from calibrate.analysis.ablating import head_profile, run_ablation
        from calibrate.analysis.accuracy_section import answers_count
        from calibrate.datasets.splits import other_split

        if self.no_ablation or not answers_count(measured):
            return None
        profile = head_profile(loaded, dataset, measured)
        others = dataset.retaken(samples=min(self.samples, self.ablation_samples), split=other_split(self.split))
        others.announce(print_note)
        say_overlap(profile, others.ref(), "the analysis")
        return run_ablation(
            loaded,
            profile,
            others,
            files.ablation,
            self.k,
            draws=self.draws,
            batch_size=min(self.batch_size, 8),
            restart=self.restart,
        )

    def _write(self, files: Files, report: "Report") -> None:
        from calibrate.analysis.section import as_csv
        from profiles.files import write_atomically
        from vhserve.report.analysis_page import render

        for section in report.sections:
            if section.rows:
                write_atomically(files.table(section.name), as_csv(section.rows))
        write_atomically(files.page, render(report))
