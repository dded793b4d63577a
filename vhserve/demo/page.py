"""The demo's report page.

Owns what the page is made of: its figures with their captions, and its facts. Words and looks are the template's.
"""

from collections.abc import Mapping

from calibrate.drawing import Drawing
from profiles.head_profile import HeadProfile
from profiles.names import Treated
from profiles.planning.rankings import group_ranking
from profiles.pruning_plan import PruningPlan
from vhserve.demo.figures import accuracy_plot, head_map, treatment_map
from vhserve.demo.headline import headline
from vhserve.demo.results import DemoResults
from vhserve.demo.rows import sections
from vhserve.report import html


def render(results: DemoResults, profile: HeadProfile, plans: Mapping[str, PruningPlan]) -> str:
    """Write the page.

    Parameters
    ----------
    results
        Everything measured; the first arm is the one compared with.
    profile
        Whose scores are drawn.
    plans
        Plan of each arm that has one, by the arm's name.

    Returns
    -------
    HTML without references to anything outside.
    """
    names = [arm.name for arm in results.arms]
    samples = results.arms[0].accuracy.figures[-1].samples
    return html.render(
        "demo",
        title=f"{results.model}: {' and '.join(names)}",
        lead=f"{results.started}, {samples} samples of {results.dataset.name}",
        header=["", *names, *(f"{name} against {names[0]}" for name in names[1:])],
        headline=headline(results),
        sections=sections(results),
        accuracy=Drawing(accuracy_plot(results.arms), "Accuracy of each arm per question family"),
        maps=[_score_map(profile), *_effect_maps(profile), *(_treatments(*one) for one in plans.items())],
        arms=results.arms,
        facts=_facts(results, plans),
    )


def _score_map(profile: HeadProfile) -> Drawing:
    size = profile.geometry.group_size
    label = "score (higher: looks more at the picture)"
    whose = "Head scores" if size == 1 else f"Scores of KV groups, mean over {size} query heads"
    return Drawing(
        head_map(group_ranking(profile, "score"), label, size),
        f"Heat map of {'head ' if size == 1 else ''}scores by layer and {_unit(size)}",
        f"{whose}, mean of {profile.samples} samples. White lines part early, middle and late layers.",
    )


def _treatments(name: str, plan: PruningPlan) -> Drawing:
    unit = _unit(plan.heads_together)
    return Drawing(
        treatment_map(plan),
        f"Map of treatments by layer and {unit} of {name}",
        f"What the plan of {name} does with each {unit}. Dots: protected.",
    )


def _effect_maps(profile: HeadProfile) -> list[Drawing]:
    if "effect" not in profile.rankings:
        return []
    size = profile.geometry.group_size
    unit = _unit(size)
    maps: tuple[tuple[Treated, str, str], ...] = (
        ("removed", f"removing each {unit}", "change if removed (nats)"),
        ("text_only", f"hiding the image from each {unit}", "change if text-only (nats)"),
    )
    return [
        Drawing(
            head_map(group_ranking(profile, "effect", treatment), label, size),
            f"Heat map of what {doing} would do, by layer and {unit}",
            f"What {doing} would do to the log-odds of the right answer, to first order.",
        )
        for treatment, doing, label in maps
    ]


def _unit(size: int) -> str:
    return "head" if size == 1 else "KV group"


def _facts(results: DemoResults, plans: Mapping[str, PruningPlan]) -> list[tuple[str, str]]:
    settings = ", ".join(f"{name} {value}" for name, value in sorted(results.dataset.described().items()))
    dataset = results.dataset
    return [
        ("model", results.model),
        ("revision", results.revision),
        ("head profile", results.profile_digest),
        *((f"plan of {name}", plan.digest) for name, plan in plans.items()),
        ("dataset", ", ".join(part for part in (dataset.name, dataset.split, dataset.digest, settings) if part)),
        ("arguments", ", ".join(f"{name} {value}" for name, value in results.arguments.items())),
        ("machine", ", ".join(f"{name} {value}" for name, value in results.machine.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in results.versions.items())),
        ("commit", results.commit or "not in a git checkout"),
        ("started", results.started),
        ("took", f"{results.seconds:.0f} s"),
    ]
