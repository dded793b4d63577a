"""The finding on stages: early heads are critical, late ones can go (paper 5.1, supplement 8).

Owns which rows of an ablation decide it. Ablations are `calibrate.ablation.run`'s.
"""

from typing import Final

from calibrate.ablation.results import Ablation, AblationRow
from calibrate.ablation.tables import of_family
from calibrate.analysis.claims import Claim, Finding, above, below, minus
from calibrate.analysis.words import percent, with_ci
from calibrate.datasets.families import ALL
from calibrate.stats.estimates import Estimate

TOP_SHARE: Final = 60 / 1024
"""Of a stage's heads: the 20 that the paper removes from each third of the 1,024 of a 7B model."""
SPARE_SHARE: Final = 300 / 1024
"""Of the late heads: the 100 that the paper says can go."""
FEW_POINTS: Final = 0.05
"""What the paper calls little loss is here less than 5 points."""


def stages_finding(ablation: Ablation | None) -> Finding:
    title = "Early heads are critical, late ones can go"
    paper = (
        "5.1, supplement 8: the top 20 heads of early layers cost 20 to 40 points, those of late layers 0 to 7, and up "
        "to 100 late heads can be removed with little loss."
    )
    claims = [
        "the top heads of early layers cost more than those of late layers",
        "the top heads of late layers cost little",
        "the lowest ranked three tenths of the late heads can go",
        "top heads of early layers cost more than random ones of late layers",
    ]
    if ablation is None:
        why = "no ablation, or the model's answers are none of the options"
        return Finding(title, paper, [Claim(claim, why, "not measured") for claim in claims])
    early, late, random = (
        _loss(ablation, *which, TOP_SHARE) for which in (("top", "early"), ("top", "late"), ("random", "late"))
    )
    return Finding(
        title,
        paper,
        [
            _apart(claims[0], early, late),
            _little(claims[1], late),
            _little(claims[2], _loss(ablation, "bottom", "late", SPARE_SHARE)),
            _apart(claims[3], early, random),
        ],
    )


Loss = tuple[Estimate, str, float]


def _loss(ablation: Ablation, select: str, stage: str, share: float) -> Loss | None:
    """What one choice of heads costs in accuracy, its name, and its share of the stage's heads.

    Of the numbers of heads that were ablated, the one nearest to a share; of random draws, the median one.
    """
    rows: list[AblationRow] = [row for row in ablation.rows if (row.select, row.stage) == (select, stage)]
    if not rows:
        return None
    nearest = min(rows, key=lambda row: (abs(row.share - share), row.k)).k
    draws = sorted((row for row in rows if row.k == nearest), key=lambda row: of_family(row.figures, ALL).difference)
    row = draws[len(draws) // 2]
    one = of_family(row.figures, ALL)
    loss = Estimate(-one.difference, -one.difference_high, -one.difference_low)
    drawn = f" (median of {len(draws)} draws)" if len(draws) > 1 else ""
    return loss, f"{stage} {select} {nearest}{drawn}", row.share


def _apart(claim: str, first: Loss | None, second: Loss | None) -> Claim:
    if first is None or second is None:
        return Claim(claim, "the ablation has no such rows", "not measured")
    gap = minus(first[0], second[0])
    words = f"{first[1]} costs {with_ci(first[0], 1, 100)} points, {second[1]} {with_ci(second[0], 1, 100)}: "
    words += f"{with_ci(gap, 1, 100)} more"
    return above(claim, gap, 0.0, words)


def _little(claim: str, loss: Loss | None) -> Claim:
    if loss is None:
        return Claim(claim, "the ablation has no such rows", "not measured")
    words = f"{loss[1]}, {percent(loss[2], 0)} of the late heads, costs {with_ci(loss[0], 1, 100)} points; little is "
    return below(claim, loss[0], FEW_POINTS, words + f"less than {percent(FEW_POINTS, 0).rstrip('%')}")
