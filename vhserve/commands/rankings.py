"""`vhserve rankings`: the flags of the comparison of rankings, and how it is printed.

The run itself is in `calibrate.rankings.comparison`.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from profiles.names import Treated
from vhserve.commands.measuring import can_be_continued, check_before_loading, open_masked_run
from vhserve.commands.options import MaskedRunOptions
from vhserve.notes import print_note
from vhserve.option_types import PROFILE, Count, Samples


class Rankings(MaskedRunOptions):
    """Measure which ranking of a profile finds the heads that matter, for `vhserve plan --rank-by`.

    Takes every head (of a grouped-query model every KV group) away by itself, and random groups of them together,
    measures what each costs in log-odds of the right answer and in accuracy, and reports the rank correlation of every
    ranking with that. An interrupted run continues where it stopped when it is started again with the same flags.
    """

    profile: CliPositionalArg[Path] = Field(description=PROFILE)
    samples: Samples = 200
    out: Path = Field(Path("rankings.json"), description="results to write")
    treatment: Treated = Field("removed", description="what is done to the heads")
    groups: Count = Field(64, description="random groups of heads, or of KV groups; 3 or more")
    group_size: Count | None = Field(
        None, description="heads, or KV groups, of a random group; 8 if not given, or all but one of a smaller model's"
    )
    markdown: bool = Field(False, description="print the tables as Markdown")

    def cli_cmd(self) -> None:
        """Compare, write the results, and print the table."""
        from rich.console import Console

        from calibrate.rankings.groups import HeadGroups, check_groups, usual_size
        from profiles.store import load_profile

        profile = load_profile(self.profile)
        groups = HeadGroups(self.groups, self.group_size or usual_size(profile.geometry), self.seed)
        check_groups(profile.geometry, groups)
        name = self.model or profile.model.name
        outputs: dict[Path, str | None] = {self.out: "vhserve.ranking-comparison"}
        check_before_loading(name, outputs, [self.profile, self.dataset], preferred=profile.model.revision)
        loaded, dataset, run = open_masked_run(self, profile, name, self.treatment)
        from calibrate.rankings.comparison import compare_rankings

        with can_be_continued(self.out):
            result = compare_rankings(loaded, profile, dataset, self.treatment, groups, run)
        if (line := result.never_right()) is not None:
            print_note(line, "warning")
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
        console.print(f"{result.samples} samples", markup=False)
