"""`vhserve rankings`: the flags of the comparison of rankings, and how it is printed.

The run itself is in `calibrate.rankings.comparison`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from pydantic_settings import CliPositionalArg

from profiles.names import Treated
from vhserve.commands.interrupted import can_be_continued

if TYPE_CHECKING:
    from calibrate.rankings.results import RankingComparison
    from profiles.head_profile import HeadProfile


class Rankings(BaseModel):
    """Measure which ranking of a profile finds the heads that matter, for `vhserve plan --rank-by`.

    Takes every head away by itself, and random groups of heads together, measures what each costs in log-odds of the
    right answer and in accuracy, and reports the rank correlation of every ranking with that. An interrupted run
    continues where it stopped when it is started again with the same flags.
    """

    profile: CliPositionalArg[Path] = Field(description="head profile that `vhserve calibrate --effects` wrote")
    model: str | None = Field(None, description="alias, Hub id or folder; the profile's own if not given")
    dataset: str = Field(
        "synthetic",
        description="`synthetic`, a .jsonl file, or a published dataset and where it is, such as pope:/data/pope",
    )
    split: str | None = Field(None, description="split of the dataset; `held_out` for synthetic if not given")
    families: list[str] | None = Field(None, description="question families, comma-separated; all if not given")
    samples: PositiveInt = Field(200, description="how many samples to measure on")
    treatment: Treated = Field("removed", description="what is done to the heads: removed, or attention to text only")
    block_size: PositiveInt | None = Field(
        None, description="image blocks that text-only heads don't see, in tokens; single image tokens if not given"
    )
    groups: PositiveInt = Field(64, description="random groups of heads")
    group_size: PositiveInt = Field(8, description="heads of a group")
    seed: NonNegativeInt = Field(0, description="seed of the choice of samples, the groups and the bootstrap")
    batch_size: PositiveInt = Field(8, description="samples in one forward pass; does not change the result")
    together: PositiveInt | None = Field(
        None, description="treatments in one forward pass; 1 on CPUs and 8 on GPUs if not given"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype of the weights; auto is the checkpoint's on a GPU, float32 on CPUs"
    )
    device: str = Field("auto", description="auto (the first GPU, or the CPU where there is none), cpu, cuda or cuda:N")
    out: Path = Field(Path("rankings.json"), description="results to write")
    restart: bool = Field(False, description="discard the state of an interrupted run")
    json_: bool = Field(False, alias="json", description="print the results as one JSON document")
    markdown: bool = Field(False, description="print the table as Markdown")

    def cli_cmd(self) -> None:
        """Compare, write the results, and print the table."""
        from rich.console import Console

        from calibrate.models.registry import find
        from profiles.files import check_writable
        from profiles.store import load_profile

        profile = load_profile(self.profile)
        check_writable(self.out)
        name = self.model or profile.model.name
        find(name)  # a wrong name is told before the seconds that importing torch takes
        result = self._measure(profile, name)
        if self.json_:
            print(self.out.read_text(encoding="utf-8"), end="")
            return

        from calibrate.ablation.tables import drawn, markdown
        from calibrate.rankings.tables import correlation_grid, verdict

        if self.markdown:
            print(markdown(correlation_grid(result)), "", verdict(result), sep="\n")
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(drawn(correlation_grid(result)))
        console.print(verdict(result), markup=False)
        for missing in result.absent.values():
            console.print(f"Not compared: {missing}", markup=False)
        console.print(f"Wrote {self.out}: {result.samples} samples", markup=False)

    def _measure(self, profile: "HeadProfile", name: str) -> "RankingComparison":
        from profiles.torchvision_import import ensure_torchvision

        ensure_torchvision()
        from calibrate.datasets import open_dataset
        from calibrate.masking.masked_runs import MaskedRunSettings
        from calibrate.models.loading import load_model
        from calibrate.rankings.comparison import Groups, compare_rankings
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
            groups = Groups(self.groups, self.group_size, self.seed)
            return compare_rankings(loaded, profile, dataset, self.treatment, groups, run)
