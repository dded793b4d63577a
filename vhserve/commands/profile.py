"""`vhserve profile show|diff|import`: the flags, and what is printed.

Maps are in `vhserve.report.profile_views`, comparisons in `profile_comparison` there, formats of other projects in
`profiles.planning`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand, get_subcommand

from profiles.names import Granularity, ImportedRanking, Treated
from vhserve.commands.flags import command
from vhserve.commands.ranking_option import AnyRanking
from vhserve.option_types import GRANULARITY_SHOWN, JSON, PROFILE, Count, CountOrZero


class Show(BaseModel):
    """Draw a table of a profile as a map in the terminal: a row for each layer, a field for each head."""

    profile: CliPositionalArg[Path] = Field(description=PROFILE)
    table: AnyRanking = Field("score", description="what to draw; effect is that of --treatment")
    treatment: Treated = Field("removed", description="treatment whose effect is drawn")
    top: CountOrZero = Field(10, description="highest heads to list below the map")
    granularity: Granularity | None = Field(None, description=GRANULARITY_SHOWN)
    values: bool = Field(False, description="write the numbers into the map, in per cent of the highest")
    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Print the map, and the highest heads."""
        from rich.console import Console

        from profiles.geometry import unit_words
        from profiles.planning.rankings import group_ranking, ranking
        from profiles.store import load_profile
        from vhserve.report.profile_views import head_map, heads_table, table_document

        profile = load_profile(self.profile)
        grouped = (self.granularity or profile.geometry.granularity) == "kv_group"
        size = profile.geometry.group_size if grouped else 1
        values = (group_ranking if size > 1 else ranking)(profile, self.table, self.treatment)
        if self.json_:
            print(table_document(profile, self.table, values))
            return
        console = Console(highlight=False, soft_wrap=True)
        title = f"{profile.model.name}: {self.table.replace('_', ' ')}, {profile.samples} samples"
        console.print(head_map(values, title, numbers=self.values, units=unit_words(size)), soft_wrap=True)
        if self.top:
            console.print(heads_table(values, self.top, size))


class Diff(BaseModel):
    """Compare a table of two profiles of one geometry: rank correlation, heads that both rank highest, and a map."""

    first: CliPositionalArg[Path] = Field(description="head profile")
    second: CliPositionalArg[Path] = Field(description="head profile to compare with it")
    table: AnyRanking = Field("score", description="what to compare; effect is that of --treatment")
    second_table: AnyRanking | None = Field(None, description="table of the second profile, if it is another")
    treatment: Treated = Field("removed", description="treatment whose effect is compared")
    top: Count = Field(10, description="heads that have changed most to list, and highest ones to count in common")
    granularity: Granularity | None = Field(None, description=GRANULARITY_SHOWN)
    json_: bool = Field(False, alias="json", description=JSON)

    def cli_cmd(self) -> None:
        """Print the comparison."""
        from rich.console import Console

        from profiles.errors import WrongShape
        from profiles.geometry import unit_words
        from profiles.planning.rankings import group_ranking, ranking
        from profiles.store import load_profile
        from vhserve.report.profile_comparison import compared, difference_map, difference_table

        profiles = [load_profile(path) for path in (self.first, self.second)]
        names = (self.table, self.second_table or self.table)
        geometry = profiles[0].geometry
        grouped = (self.granularity or geometry.granularity) == "kv_group"
        size = geometry.group_size if grouped else 1
        rows = group_ranking if grouped else ranking
        first, second = (rows(profile, name, self.treatment) for profile, name in zip(profiles, names, strict=True))
        if first.shape != second.shape:
            units = "heads" if size == 1 else "KV groups"
            raise WrongShape(
                f"{self.second}: has {second.shape[0]} layers of {second.shape[1]} {units}",
                expected=f"{first.shape[0]} layers of {first.shape[1]}, as {self.first} has",
                fix="give profiles of one geometry",
            )
        comparison = compared(profiles, names, first, second, self.top, size)
        if self.json_:
            print(comparison.model_dump_json(indent=2))
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(difference_map(first, second, unit_words(size)), soft_wrap=True)
        console.print(difference_table(comparison))


class Import(BaseModel):
    """Add another project's head scores to a profile, for `vhserve plan --rank-by` and `vhserve rankings`."""

    profile: CliPositionalArg[Path] = Field(description="head profile of the model that the scores are of")
    scores: CliPositionalArg[Path] = Field(
        description="SparseMM's JSON (visual_head/head_score/*.json) or DuoAttention's full_attention_heads.tsv"
    )
    kind: Literal["auto", ImportedRanking] = Field(
        "auto", description="whose scores they are; auto goes by the file's name: .json or .tsv"
    )
    out: Path | None = Field(None, description="profile to write; the one that was read if not given")

    def cli_cmd(self) -> None:
        """Write the profile with the scores."""
        from rich.console import Console

        from profiles.errors import WrongValue
        from profiles.files import check_output
        from profiles.head_profile import PROFILE_FORMAT
        from profiles.planning.published_scores import read_scores, with_scores
        from profiles.store import load_profile, save

        by_name: dict[str, ImportedRanking] = {".json": "sparsemm", ".tsv": "duo_attention"}
        kind = by_name.get(self.scores.suffix.lower()) if self.kind == "auto" else self.kind
        if kind is None:
            wrong = f"{self.scores}: its name does not say whose scores it holds"
            raise WrongValue(wrong, expected="a name that ends in .json or .tsv", fix="give --kind")
        profile, out = load_profile(self.profile), self.out or self.profile
        check_output(out, document=PROFILE_FORMAT, inputs=[self.scores])
        scores = read_scores(self.scores, kind, profile.geometry)
        save(with_scores(profile, kind, scores), out)
        line = f"{kind}'s scores of {profile.geometry.heads} heads, for --rank-by {kind}"
        Console(highlight=False, soft_wrap=True).print(line, markup=False, soft_wrap=True)


class Profile(BaseModel):
    """Look at head profiles in the terminal, compare two, and import other projects' scores."""

    show: CliSubCommand[Show] = command(Show)
    diff: CliSubCommand[Diff] = command(Diff)
    import_: CliSubCommand[Import] = command(Import, alias="import")

    def cli_cmd(self) -> None:
        """Run one of them."""
        if get_subcommand(self, is_required=False) is None:
            from profiles.errors import WrongValue

            raise WrongValue(
                "profile: nothing to do", expected="show, diff or import", fix="see vhserve profile --help"
            )
        CliApp.run_subcommand(self)
