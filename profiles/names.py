"""The words of files and flags, each written once: stages, treatments, granularities, selections, rankings.

Standard library only, so that a command's help costs no import. Does not know what any of them does.
"""

from typing import TYPE_CHECKING, Final, Literal, get_args

from profiles.treatments import budgeted

Stage = Literal["early", "middle", "late"]
StageOrAll = Literal[Stage, "all"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

TreatmentName = str
"""Name of a treatment of `profiles.treatments`."""
TREATED: Final = tuple(one.name for one in budgeted())
"""The treatments whose heads are chosen by a budget, in the order in which they are chosen."""
if TYPE_CHECKING:
    Treated = str  # a type checker cannot read the registry
else:
    Treated = Literal[TREATED]

ABLATED: Final = (TREATED[0], "mean", "uniform", *TREATED[1:])
"""What an ablation does to heads: treatments, and what only it does (`calibrate.ablation.treatments`)."""
if TYPE_CHECKING:
    Ablated = str
else:
    Ablated = Literal[ABLATED]

CompensationMethod = Literal["none", "mean"]
"""What replaces a removed head's output."""

Granularity = Literal["query_head", "kv_group"]
"""Whether query heads are treated one by one, or all of a KV head together."""

Select = Literal["bottom", "top", "random"]
"""Lowest ranked first; highest ranked first; in the order of a seed."""
SelectionMethod = Literal[Select, "manual"]

LayerFunction = Literal["inverse", "none"]
"""Factor of the head score: 1 / (layer + 1), or 1."""

ImportedRanking = Literal["sparsemm", "duo_attention"]
"""Scores of other projects."""
AttentionRanking = Literal["score", "image_weight", "concentration", "box_weight"]
"""Scores of the attention row alone."""
KnownRanking = Literal[AttentionRanking, "effect", "gradient", ImportedRanking]
"""Rankings that this release makes and imports, in the order in which they are listed."""
KNOWN_RANKINGS: Final[tuple[KnownRanking, ...]] = get_args(KnownRanking)
