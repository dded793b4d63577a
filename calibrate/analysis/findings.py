"""The paper's six findings, each as claims that the measured numbers decide.

Owns what each finding comes to here: the number, its interval, and the bound that it must pass. A claim whose interval
holds its bound is not decided. Sections of the paper are named with each. Knows no page.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from calibrate.ablation.results import Ablation
from calibrate.analysis.accuracy_section import answers_count
from calibrate.analysis.attention import DRAWN, FEW_WRONG, pairs
from calibrate.analysis.claims import Claim, Finding, above, below, minus
from calibrate.analysis.heads import narrowness
from calibrate.analysis.jackknife import jackknife
from calibrate.analysis.lens_section import settled_layer
from calibrate.analysis.similarity import pearson
from calibrate.analysis.similarity_sections import profile_product
from calibrate.analysis.stages_finding import stages_finding
from calibrate.analysis.tallies import Means, Measured
from calibrate.analysis.words import number, percent, with_ci
from calibrate.stats.estimates import Estimate
from profiles.geometry import stage_layers
from profiles.head_profile import HeadProfile
from profiles.names import Stage

Array = npt.NDArray[np.float64]

LOOK_TWICE: Final = tuple(name + end for name in ("general", "object", "super") for end in ("", DRAWN))
"""Families of PointQA, whose questions ask to look twice; others are what the paper compares them with."""
LITTLE: Final = 0.1
"""What the paper calls minimal is here a tenth of the mean."""


def findings(
    measured: Measured,
    ablation: Ablation | None,
    variants: Mapping[str, HeadProfile],
    others: Mapping[str, HeadProfile],
) -> list[Finding]:
    """Decide all six."""
    return [
        _gathering(measured),
        _context(measured),
        _settling(measured),
        _concentration(measured),
        _models(measured, variants, others),
        stages_finding(ablation if answers_count(measured) else None),
    ]


def _of_means(
    measured: Measured, value: Callable[[Means], float], family: str | None = None, right: bool | None = None
) -> Callable[[Sequence[int]], float | None]:
    def of(folds: Sequence[int]) -> float | None:
        means = measured.means(family, right=right, folds=folds)
        return None if means is None else value(means)

    return of


def layer_share(product: Array) -> float:
    """Share of the variance among heads, `(layers, query heads)`, that lies between layers: 0 to 1 (eta squared)."""
    spread = float(np.square(product - product.mean()).sum())
    between = product.shape[1] * float(np.square(product.mean(1) - product.mean()).sum())
    return between / spread if spread else 0.0


def _gathering(measured: Measured) -> Finding:
    share = jackknife(measured, _of_means(measured, lambda means: layer_share(means.product)))
    means = measured.means()
    chance = 0.0
    if means is not None:
        rng, product = np.random.default_rng(0), means.product
        drawn = [layer_share(rng.permutation(product.ravel()).reshape(product.shape)) for _ in range(2000)]
        chance = float(np.quantile(drawn, 0.975))

    def lower(means: Means) -> float:
        late = list(stage_layers("late", len(means.product)))
        return 1 - float(means.product[late].sum() / means.product.sum())

    early_and_middle = jackknife(measured, _of_means(measured, lower))
    layers = measured.ranks().shape[1]
    even = 1 - len(stage_layers("late", layers)) / layers
    return Finding(
        "Visual heads gather in certain layers",
        "4.1, 6: they cluster in layers, early and middle ones mainly, instead of being spread over all.",
        [
            above(
                "heads of one layer are more alike than heads thrown together at random",
                share,
                chance,
                f"layers account for {with_ci(share, 2)} of the variance of weight times concentration among heads; "
                f"shuffled heads reach {number(chance, 2)} in one of forty draws",
            ),
            above(
                "early and middle layers hold more of it than their share of layers",
                early_and_middle,
                even,
                f"{with_ci(early_and_middle, 1, 100, '%')} of weight times concentration lies in early and middle "
                f"layers, which are {percent(even)} of the layers",
            ),
        ],
    )


def _context(measured: Measured) -> Finding:
    pair = pairs(measured.families)
    plain = [one for one, _ in pair]

    def change(first: str, second: str, folds: Sequence[int]) -> Array | None:
        before, after = measured.means(first, folds=folds), measured.means(second, folds=folds)
        return None if before is None or after is None else after.image_weight - before.image_weight

    def by_box(folds: Sequence[int]) -> float | None:
        found = [change(*one, folds) for one in pair]
        known = [float(np.abs(one).mean()) for one in found if one is not None]
        mean = measured.means(folds=folds)
        return float(np.mean(known)) / float(mean.image_weight.mean()) if known and mean is not None else None

    def by_question(folds: Sequence[int]) -> float | None:
        kinds = [(a, b) for i, a in enumerate(plain) for b in plain[i + 1 :]]
        found = [change(*one, folds) for one in kinds]
        known = [float(np.abs(one).mean()) for one in found if one is not None]
        mean = measured.means(folds=folds)
        return float(np.mean(known)) / float(mean.image_weight.mean()) if known and mean is not None else None

    def more(folds: Sequence[int]) -> float | None:
        box, question = by_box(folds), by_question(folds)
        return None if not box or question is None else question / box

    box, ratio = jackknife(measured, by_box), jackknife(measured, more)
    asked = ", ".join(f"{one} and {drawn}" for one, drawn in pair)
    general = next((one for one in plain if one.rpartition("/")[2] == "general"), None)
    thing = next((one for one in plain if one.rpartition("/")[2] == "object"), None)
    claims = [
        below(
            "drawing the box hardly changes how much heads look at the image",
            box,
            LITTLE,
            f"drawing it changes a head's image weight by {with_ci(box, 1, 100, '%')} of the mean image weight, on "
            f"average over heads ({asked}); hardly is less than {percent(LITTLE, 0)}",
            "the dataset does not have the same questions with and without a drawn box",
        ),
        above(
            "the kind of question changes it more than the drawn box does",
            ratio,
            1.0,
            f"other questions change it {with_ci(ratio, 2)} times as much",
            "the dataset does not have several kinds of questions with and without a drawn box",
        ),
    ]
    if general and thing:
        everything = change(general, thing, range(20))
        if everything is not None:
            place = np.unravel_index(everything.argmax(), everything.shape)

            def rise(folds: Sequence[int]) -> float | None:
                found = change(str(general), str(thing), folds)
                return None if found is None else float(found[place])

            most = jackknife(measured, rise)
            claims.append(
                above(
                    "object questions wake heads that general questions leave asleep",
                    most,
                    LITTLE,
                    f"the head that gains most, layer {place[0]} head {place[1]}, gains "
                    f"{with_ci(most)} in image weight, the largest of {everything.size} heads; waking is more than "
                    f"{LITTLE:g}",
                )
            )
    return Finding(
        "Heads respond to the question, not to a drawn box",
        "4.1: relative changes by a drawn box are minimal; object questions activate certain heads.",
        claims,
    )


def _settling(measured: Measured) -> Finding:
    layers = measured.ranks().shape[1]
    base = {family: family.rpartition("/")[2] for family in measured.families}
    twice = [family for family, name in base.items() if name == "general"]
    once = [family for family, name in base.items() if name not in LOOK_TWICE]
    later = settles = None
    words = first_words = ""
    if twice and once:
        slow = settled_layer(measured, twice[0])
        quick = [settled_layer(measured, family) for family in once]
        settles = max(quick, key=lambda one: one.value)
        later = minus(slow, settles)
        each = "; ".join(f"{name} {with_ci(one, 2)}" for name, one in zip(once, quick, strict=True))
        words = f"{twice[0]} settles at layer {with_ci(slow, 2)} of 0 to {layers - 1}, {with_ci(later, 2)} layers "
        words += "behind the last of the others"
        first_words = f"mean settled layer: {each}; the first third ends before layer {layers // 3}"
    why = "needs general questions (PointQA's) beside other benchmarks"
    return Finding(
        "Answers settle early where one look is enough, and late where one must look twice",
        "4.2, supplement 7: on POPE and MMBench the final token ranks first after the initial layers, on general "
        "questions it takes more.",
        [
            above("general questions settle later than any other benchmark's", later, 0.0, words, why),
            below("all other benchmarks' answers settle in the early layers", settles, layers / 3, first_words, why),
        ],
    )


def _concentration(measured: Measured) -> Finding:
    layers = measured.ranks().shape[1]

    def later(stage: Stage) -> Estimate | None:
        early, own = list(stage_layers("early", layers)), list(stage_layers(stage, layers))

        def gain(means: Means) -> float:
            narrow = narrowness(means)
            return float(narrow[own].mean() - narrow[early].mean())

        return jackknife(measured, _of_means(measured, gain)) if early and own else None

    def deeper(stage: Stage) -> Claim:
        gain = later(stage)
        words = f"concentration, heads counted by their image weight, is {with_ci(gain)} higher there"
        return above(f"{stage} layers look more narrowly than early ones", gain, 0.0, words, "needs three layers")

    def narrower(folds: Sequence[int]) -> float | None:
        right, wrong = (measured.means(right=side, folds=folds) for side in (True, False))
        if right is None or wrong is None:
            return None
        sides = [float(one.product.sum() / one.image_weight.sum()) for one in (right, wrong)]
        return sides[0] - sides[1]

    wrong, right = int((~measured.right()).sum()), int(measured.right().sum())
    enough = answers_count(measured) and min(wrong, right) >= FEW_WRONG
    gain = jackknife(measured, narrower) if enough else None
    return Finding(
        "Attention narrows with depth, and narrower attention goes with right answers",
        "4.2 to 4.5: early heads look at the whole image, later ones at regions; concentrated heads go with better "
        "performance.",
        [
            deeper("middle"),
            deeper("late"),
            above(
                "attention is narrower when the answer is right",
                gain,
                0.0,
                f"concentration, heads counted by their image weight, is {with_ci(gain, 4)} higher",
                f"{right} right and {wrong} wrong answers; {FEW_WRONG} of each are wanted",
            ),
        ],
    )


def _models(measured: Measured, variants: Mapping[str, HeadProfile], others: Mapping[str, HeadProfile]) -> Finding:
    means = measured.means()
    claims = []
    wordings = (
        (variants, "variants of a model have their visual heads in common", 0.8, True),
        (others, "models of other families do not", 0.1, False),
    )
    for profiles, claim, bound, higher in wordings:
        found = {}
        for name, profile in profiles.items():
            table = profile_product(profile)
            if means is not None and table.shape == means.product.shape:
                r = pearson(means.image_weight * means.concentration, table)
                if r is not None:
                    found[name] = _fisher(r, table.size)
        worst = (min if higher else max)(found.values(), key=lambda one: one.value, default=None)
        each = "; ".join(f"{name} r = {with_ci(one, 2)}" for name, one in found.items())
        words = f"{each} (intervals by Fisher's z, as if heads were independent)"
        why = "no profile of another model of the same size was given"
        claims.append((above if higher else below)(claim, worst, bound, words, why))
    return Finding(
        "Visual heads are a model family's own",
        "4.4: r above 0.8 between a model and its variants, below 0.1 between families.",
        claims,
    )


def _fisher(r: float, heads: int) -> Estimate:
    if heads < 4 or abs(r) >= 1:
        return Estimate(r, r, r)
    reach = float(norm.ppf(0.975)) / np.sqrt(heads - 3)
    return Estimate(r, float(np.tanh(np.arctanh(r) - reach)), float(np.tanh(np.arctanh(r) + reach)))
