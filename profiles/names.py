"""The words of files and flags, each written once: stages, treatments, granularities, selections, rankings.

Standard library only, so that a command's help costs no import. Does not know what any of them does.
"""

from typing import Final, Literal, get_args

Stage = Literal["early", "middle", "late"]
StageOrAll = Literal[Stage, "all"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)

Treatment = Literal["full", "text_only", "removed"]
"""What happens to a head at serving time."""
TREATMENTS: Final[tuple[Treatment, ...]] = get_args(Treatment)
Treated = Literal["removed", "text_only"]
"""The treatments that change a head."""
TREATED: Final[tuple[Treated, ...]] = get_args(Treated)

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
