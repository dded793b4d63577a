"""Head profiles of version 1, as they are still read: the tables in fixed fields, and what became of each.

Does not write them.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from profiles import canonical
from profiles.errors import WrongValue
from profiles.geometry import Name
from profiles.head_profile import Calibration, HeadProfile, check_rows
from profiles.names import ImportedRanking
from profiles.ranking import Ranking
from profiles.strict import Strict, defect

# Sums of attention in float32 or bfloat16 pass 1 by rounding.
Share = Annotated[float, Field(ge=0, le=1.001)]


class HeadScores(Strict):
    """Means over the samples, each indexed ``[layer][query head]``.

    Attributes
    ----------
    image_weight
        Share of the last prompt position's attention on image tokens, 0 to 1.
    concentration
        1 − normalised entropy over image tokens, 0 to 1; higher is narrower.
    score
        Head score, at least 0; higher means more visual: keep.
    box_weight
        Share of attention on image tokens inside the question's box, over the samples that have one.
    """

    image_weight: list[list[Share]]
    concentration: list[list[Share]]
    score: list[list[NonNegativeFloat]]
    box_weight: list[list[Share]] | None


class HeadEffects(Strict):
    """What treating a head would do to the answers, to first order; each table is indexed ``[layer][query head]``.

    Means over the samples of the size of the change in the log-odds of the right answer's first token, in nats; at
    least 0; higher means worth more: keep.

    Attributes
    ----------
    removed, text_only
        By treatment.
    gradient
        Size of the change in the loss −log p of that token instead, for removal: the importance of Michel et al.
        (NeurIPS 2019); None where it was not measured.
    block_size
        Of the image blocks that a text-only head would not see; None for single image tokens.
    """

    removed: list[list[NonNegativeFloat]]
    text_only: list[list[NonNegativeFloat]]
    gradient: list[list[NonNegativeFloat]] | None = None
    block_size: PositiveInt | None


class ImportedScores(Strict):
    """Scores of the same heads that another project has published (`profiles.planning.published_scores`).

    Attributes
    ----------
    source, digest
        Name of the file, and ``sha256:…`` of its bytes.
    scores
        ``[layer][query head]``; higher means keep.
    """

    name: ImportedRanking
    source: Name
    digest: Name
    scores: list[list[float]]


class HeadProfileV1(Calibration):
    """A head profile of version 1.

    Attributes
    ----------
    effects
        Effects of treatments; None where they were not measured.
    imported
        Scores of other projects, each at most once.
    """

    version: Literal[1] = 1
    heads: HeadScores
    effects: HeadEffects | None = None
    imported: list[ImportedScores] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("image_weight", "concentration", "score", "box_weight"):
            rows = getattr(self.heads, name)
            if rows is not None:
                check_rows(rows, self.geometry, f"heads.{name}")
        if self.effects is not None:
            check_rows(self.effects.removed, self.geometry, "effects.removed")
            check_rows(self.effects.text_only, self.geometry, "effects.text_only")
            if self.effects.gradient is not None:
                check_rows(self.effects.gradient, self.geometry, "effects.gradient")
        for index, one in enumerate(self.imported):
            check_rows(one.scores, self.geometry, f"imported[{index}].scores")
            if one.name in [other.name for other in self.imported[:index]]:
                raise defect(WrongValue, f"imported[{index}].name", f"is {one.name!r} again", expected="each name once")
        self.check_shared()
        if self.heads.box_weight is not None and not self.samples_with_box:
            raise defect(WrongValue, "heads.box_weight", "is given without a sample with a box", expected="null")
        return self

    def upgraded(self) -> HeadProfile:
        """The same profile as version 2."""
        heads, effects = self.heads, self.effects
        rankings = {name: Ranking.of(getattr(heads, name)) for name in ("score", "image_weight", "concentration")}
        if heads.box_weight is not None:
            rankings["box_weight"] = Ranking.of(heads.box_weight)
        if effects is not None:
            tables = {"removed": effects.removed, "text_only": effects.text_only}
            rankings["effect"] = Ranking(tables=tables, block_size=effects.block_size)
            if effects.gradient is not None:
                rankings["gradient"] = Ranking.of(effects.gradient)
        for one in self.imported:
            rankings[one.name] = Ranking.of(one.scores, source=one.source, digest=one.digest)
        shared = {name: getattr(self, name) for name in Calibration.model_fields}
        return HeadProfile(**shared, rankings=rankings).read_from(canonical.digest(self))
