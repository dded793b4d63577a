"""How alike families are seen, and models see (paper 4.4 and 5.2, figure 8): matrices, with what chance would give.

Owns these sections; the formulas are in `similarity`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from calibrate.ablation.results import Ablation
from calibrate.ablation.tables import of_family
from calibrate.analysis.accuracy_section import answers_count
from calibrate.analysis.attention import pairs
from calibrate.analysis.section import CsvRow, Section
from calibrate.analysis.similarity import earth_movers_distance, mantel, pearson, shuffled_pearson
from calibrate.analysis.tallies import FOLDS, Means, Measured
from calibrate.analysis.words import number
from calibrate.drawing import Drawing, new_figure, svg
from profiles.head_profile import HeadProfile
from profiles.planning.rankings import ranking

Array = npt.NDArray[np.float64]

_HALVES = (list(range(0, FOLDS, 2)), list(range(1, FOLDS, 2)))


def cloud(means: Means) -> Array:
    """Heads as points (image weight, concentration), `(heads, 2)`."""
    return np.stack([means.image_weight.ravel(), means.concentration.ravel()], 1)


def distances(measured: Measured) -> Array:
    """Earth mover's distance between families, `(families, families)`; the diagonal is between a family's halves.

    The diagonal is what chance does; NaN for a family whose samples are all in one half.
    """
    families = measured.families
    found = np.full((len(families), len(families)), np.nan)
    clouds = [cloud(one) for one in (measured.means(family) for family in families) if one is not None]
    for i, j in np.ndindex(*found.shape):
        if i < j:
            found[i, j] = found[j, i] = earth_movers_distance(clouds[i], clouds[j])
    for i, family in enumerate(families):
        halves = [measured.means(family, folds=half) for half in _HALVES]
        if halves[0] is not None and halves[1] is not None:
            found[i, i] = earth_movers_distance(cloud(halves[0]), cloud(halves[1]))
    return found


def moves(ablation: Ablation, families: Sequence[str]) -> Array:
    """How differently two families' accuracy moves when heads are ablated, `(families, families)`.

    Mean over the ablation's rows of the difference of their changes in accuracy, without sign.
    """
    changes = np.array([[of_family(row.figures, family).difference for row in ablation.rows] for family in families])
    return np.abs(changes[:, None] - changes[None]).mean(2)


def families_section(measured: Measured, ablation: Ablation | None) -> Section | None:
    """Families against each other; nothing for a single one."""
    families = measured.families
    if len(families) < 2:
        return None
    far, alike = distances(measured), np.full((len(families), len(families)), np.nan)
    products = [one.product for one in (measured.means(family) for family in families) if one is not None]
    for i, j in np.ndindex(*alike.shape):
        r = pearson(products[i], products[j])
        alike[i, j] = np.nan if r is None else r
    figures = [
        Drawing(
            _matrices({"Pearson's r of weight times concentration": alike, "earth mover's distance": far}, families),
            "Matrices of Pearson's r and of the earth mover's distance between question families",
            "On the diagonal of the distance: between the two halves of a family's own samples, which is what chance "
            "does.",
        )
    ]
    predictions = _predictions(measured, ablation, far)
    rows: list[CsvRow] = []
    for i, j in np.ndindex(*far.shape):
        row: dict[str, str | float | None] = {"first": families[i], "second": families[j]}
        row |= {"pearson": _known(float(alike[i, j])), "earth_movers_distance": _known(float(far[i, j]))}
        row |= {name: float(other[i, j]) for name, (other, _) in predictions.items()}
        rows.append(row)
    return Section(
        name="similar-families",
        title="Which families are seen alike",
        look_for="Left: do two families use the same heads (1 is the same)? Right: how far apart their clouds of heads "
        "lie in the scatter above, however heads are numbered; light is far. Compare with the diagonal: a distance "
        "no larger than that between two halves of one family is none. The paper suggests that the distance tells how "
        "accuracy on another benchmark will move; Mantel's test below asks that of these families.",
        figures=figures,
        statements=[statement for _, statement in predictions.values()],
        rows=rows,
    )


def _predictions(measured: Measured, ablation: Ablation | None, far: Array) -> dict[str, tuple[Array, str]]:
    """By name: how families differ in accuracy, and in words whether the distance goes with it."""
    if not answers_count(measured):
        return {}
    accuracy = np.array([measured.right(family).mean() for family in measured.families])
    others = {"accuracy_apart": (np.abs(accuracy[:, None] - accuracy[None]), "accuracy of the whole model")}
    if ablation is not None and {*measured.families} <= {one.family for one in ablation.baseline}:
        others["moves_apart"] = moves(ablation, measured.families), "change of accuracy when heads are ablated"
    # A drawn twin asks the same questions: counted beside its own, it would make distances and moves agree by itself.
    twins = {drawn for _, drawn in pairs(measured.families)}
    own = [number for number, family in enumerate(measured.families) if family not in twins]
    without = ", their twins with a drawn box left out" if twins else ""
    found = {}
    for name, (apart, words) in others.items():
        test = mantel(far[np.ix_(own, own)], apart[np.ix_(own, own)])
        if test is None:
            text = f"Distance against difference in {words}: too few families, or no difference, to say."
        else:
            verdict = "they go together" if test[1] < 0.05 else "no connection can be told from chance"
            text = f"Distance against difference in {words}: Spearman's rho {number(test[0], 2)}, Mantel's p "
            text += f"{test[1]:.3f} (one-sided, {len(own)} families{without}): {verdict}."
        found[name] = apart, text
    return found


def profile_product(profile: HeadProfile) -> Array:
    """Mean image weight times mean concentration of every head, `(layers, query heads)`, each 0 to 1."""
    return ranking(profile, "image_weight") * ranking(profile, "concentration")


def models_section(
    model: str, measured: Measured, variants: Mapping[str, HeadProfile], others: Mapping[str, HeadProfile]
) -> Section | None:
    """This model against others, by their head profiles; nothing without any."""
    mine = measured.means()
    if mine is None or not (variants or others):
        return None
    tables = {model.rstrip("/").rpartition("/")[2]: mine.image_weight * mine.concentration}
    tables |= {name: profile_product(profile) for name, profile in {**variants, **others}.items()}
    names = list(tables)
    alike = np.full((len(names), len(names)), np.nan)
    rows: list[CsvRow] = []
    for i, j in np.ndindex(*alike.shape):
        first, second = tables[names[i]], tables[names[j]]
        r = pearson(first, second) if first.shape == second.shape else None
        shuffled = shuffled_pearson(first, second) if first.shape == second.shape and i != j else None
        alike[i, j] = np.nan if r is None else r
        row: dict[str, str | float | None] = {"first": names[i], "second": names[j], "pearson": r}
        ends = shuffled or (None, None, None)
        row |= dict(zip(("shuffled_mean", "shuffled_low", "shuffled_high"), ends, strict=True))
        rows.append(row)
    statements = [
        f"{row['first']} and {row['second']}: "
        + (
            "sizes differ, or a table does not vary."
            if row["pearson"] is None
            else f"r = {row['pearson']:.2f}; with the heads of each layer shuffled {row['shuffled_mean']:.2f} "
            f"({row['shuffled_low']:.2f} to {row['shuffled_high']:.2f})."
        )
        for row in rows
        if names.index(str(row["first"])) < names.index(str(row["second"]))
    ]
    return Section(
        name="similar-models",
        title="Which models see alike",
        look_for="Pearson's r of weight times concentration, head by head; 1 is the same. Heads of models that were "
        "trained apart are numbered at random within a layer, so compare r with what it is when the heads of each "
        "layer are shuffled: that much is due to the layers alone. In the paper variants of one model have r above "
        "0.8, other families below 0.1. Profiles may come from other samples than these.",
        figures=[Drawing(_matrices({"Pearson's r": alike}, names), "Matrix of Pearson's r between models", "")],
        statements=statements,
        rows=rows,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _matrices(tables: Mapping[str, Array], names: Sequence[str]) -> str:
    side = 1.1 + 0.34 * len(names) + 0.075 * max(map(len, names))
    with new_figure((side + 0.8) * len(tables), side) as figure:
        panels = figure.subplots(1, len(tables), squeeze=False)[0]
        for axes, (title, values) in zip(panels, tables.items(), strict=True):
            _matrix(axes, values, names)
            axes.set_title(title, fontsize=9)
        return svg(figure)


def _matrix(axes: Axes, values: Array, names: Sequence[str]) -> None:
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    axes.imshow(values, interpolation="nearest", cmap="cividis", vmin=low, vmax=high if high > low else low + 1)
    for i, j in np.ndindex(*values.shape):
        if np.isnan(values[i, j]):
            continue
        dark = values[i, j] < (low + high) / 2
        text = f"{values[i, j]:.2f}".replace("0.", ".", 1) if abs(values[i, j]) < 1 else f"{values[i, j]:.0f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
