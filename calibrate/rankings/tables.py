"""Tables of a comparison of rankings, for the terminal and as Markdown, and one sentence that says which ranking wins.

Does not know how anything was measured.
"""

from typing import Final

from calibrate.ablation.tables import MINUS, NONE, Grid
from calibrate.rankings.results import AblatedUnit, Correlation, LossMeasure, RandomRankings, RankingComparison

HEADS: Final[dict[AblatedUnit, str]] = {"head": "heads", "kv_group": "KV groups"}

NAMES = {
    "score": "score (the paper's)",
    "image_weight": "image weight",
    "box_weight": "box weight",
    "gradient": "gradient",
    "gradient_by_layer": "gradient by layer",
    "sparsemm": "SparseMM",
    "duo_attention": "DuoAttention",
}
WORDS = {"log_odds": "log-odds", "accuracy": "accuracy"}


def correlation_grid(result: RankingComparison) -> Grid:
    """Rankings, the best first, by what they are compared with: rho and its 95% interval."""
    cells = {(one.ranking, (one.kind, one.outcome)): one for one in result.correlations}
    columns = columns_of(result)
    order = sorted(result.rankings, key=lambda name: -_number(cells[name, columns[0]].rho))
    rows = [[[NAMES.get(name, name)], *(_cell(cells[name, column]) for column in columns)] for name in order]
    by_chance: dict[tuple[AblatedUnit, LossMeasure], RandomRankings] = {
        (one.kind, one.outcome): one for one in result.random
    }
    rows.append([["random"], *(_chance(by_chance[column]) for column in columns)])
    sizes = {result.single: len(result.heads), "group": len(result.groups)}
    of = "" if result.single == "head" else f" {HEADS[result.single]}"
    heads = {**HEADS, "group": f"{'groups' if not of else 'sets'} of {result.settings['group_size']}{of}"}
    header = ["ranking", *(f"{sizes[kind]} {heads[kind]}, {WORDS[outcome]}" for kind, outcome in columns)]
    title = (
        f"Spearman's rank correlation with what {_done(result)} costs: {result.model.name} on {result.dataset.name}, "
        f"n = {result.samples} samples"
    )
    note = f"In parentheses 95%, by bootstrap of {HEADS[result.single]} and samples; * above 97.5% of random rankings."
    return Grid(title, header, rows, note)


def columns_of(result: RankingComparison) -> list[tuple[AblatedUnit, LossMeasure]]:
    """What rankings are compared with: what single heads or KV groups, and random groups, cost by each measure."""
    kinds: tuple[AblatedUnit, ...] = (result.single, "group")
    measures: tuple[LossMeasure, ...] = ("log_odds", "accuracy")
    return [(kind, measure) for kind in kinds for measure in measures]


def verdict(result: RankingComparison) -> str:
    """Which ranking wins by the log-odds of single heads or KV groups, how surely, and where the paper's score is."""
    there = [one for one in result.correlations if (one.kind, one.outcome) == (result.single, "log_odds")]
    known = [one for one in there if one.rho is not None]
    if not known:
        return f"No ranking can be compared: all {HEADS[result.single]} are worth the same, or are ranked alike."
    best = max(known, key=lambda one: _number(one.rho))
    said = f"Best by single {HEADS[result.single]}' log-odds: {_name(best)}, rho {_signed(best.rho)}"
    ties = [_name(one) for one in known if one is not best and _number(one.behind_best_low) <= 0]
    said += f"; not surely better than {', '.join(ties)}." if ties else "; surely better than all others."
    score = next((one for one in known if one.ranking == "score"), None)
    if score is None or score is best:
        return said
    surely = "surely" if _number(score.behind_best_low) > 0 else "not surely"
    chance = "above" if score.beats_random else "no better than"
    return f"{said} The paper's score, rho {_signed(score.rho)}, is {surely} worse, and {chance} random rankings."


def _done(result: RankingComparison) -> str:
    heads = HEADS[result.single]
    return f"taking {heads} away" if result.treatment == "removed" else f"hiding the image from {heads}"


def _name(one: Correlation) -> str:
    return NAMES.get(one.ranking, one.ranking)


def _cell(one: Correlation) -> list[str]:
    if one.rho is None:
        return [NONE]
    star = " *" if one.beats_random else ""
    return [f"{_signed(one.rho)}{star}", f"({_signed(one.low)} to {_signed(one.high)})"]


def _chance(one: RandomRankings) -> list[str]:
    return [NONE] if one.mean is None else [_signed(one.mean), f"({_signed(one.low)} to {_signed(one.high)})"]


def _signed(value: float | None) -> str:
    # Plus zero, or what rounds to zero from below would be written −0.00.
    return NONE if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", MINUS)


def _number(value: float | None) -> float:
    return float("-inf") if value is None else value
