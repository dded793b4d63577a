"""The demo's report page.

Owns its words. Looks are `vhserve.report.html`'s; everything that comes from outside is escaped.
"""

from collections.abc import Mapping
from html import escape
from string import Template

from profiles.head_profile import HeadProfile
from profiles.names import Treated
from profiles.planning.rankings import ranking
from profiles.pruning_plan import PruningPlan
from vhserve.demo.results import DemoResults
from vhserve.report import html
from vhserve.report.figures import accuracy_plot, head_map, treatment_map
from vhserve.report.rows import Section, sections

_BODY = Template("""<h2>What to look at</h2>
<ul>
<li><b>Capacity</b>: the same memory holds more, so more requests run at a time. This is what pruning is for. In text
tokens it should rise as bytes per text token fall; text-only heads keep the text and drop the image, so they show in
image prompts alone (one image in 70 tokens of text).</li>
<li><b>All families</b>: what it costs in accuracy; the last column is the difference in percentage points. Both arms
answered the same questions, so look at the flips (lost: right in the first arm only; won: right in the other only) and
at McNemar's exact p, the chance of flips at least as uneven if neither arm were better. An interval of the difference
that reaches far below zero says that the samples were too few to rule out a loss, not that there is none.</li>
<li><b>Latency</b>: TTFT is the time from sending a request to its first token, TPOT the time between further tokens;
output tokens per second are those of all streams together. With memory to spare and a model this small, differences of
a few percent are noise; the gain shows when the cache is full. Servers ran one after the other: anything else that the
machine did in the meantime is in these figures.</li>
</ul>
<h2>Measured</h2>
<div class="wide"><table>
<thead><tr>$head</tr></thead>
<tbody>
$body
</tbody>
</table></div>
<h2>Accuracy per question family</h2>
$accuracy
<h2>Heads</h2>
$maps
<h2>Arms</h2>
<ul>$arms</ul>
<h2>Where this comes from</h2>
$facts""")


_STRONG = '<tr class="strong">'


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
    head = ["", *names, *(f"{name} against {names[0]}" for name in names[1:])]
    maps = [
        html.figure(
            head_map(profile.scores(), "score (higher: looks more at the picture)"),
            "Heat map of head scores by layer and head",
            f"Head scores, mean of {profile.samples} samples. White lines part early, middle and late layers.",
        ),
        *_effect_maps(profile),
    ]
    for name, plan in plans.items():
        maps.append(
            html.figure(
                treatment_map(plan),
                f"Map of treatments by layer and head of {name}",
                f"What the plan of {name} does with each head. Dots: protected.",
            )
        )
    body = _BODY.substitute(
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in head),
        body="\n".join(_section(section, len(head)) for section in sections(results)),
        accuracy=html.figure(accuracy_plot(results.arms), "Accuracy of each arm per question family", ""),
        maps="\n".join(maps),
        arms="".join(f"<li><b>{escape(arm.name)}</b>: {escape(arm.about)}</li>" for arm in results.arms),
        facts=html.facts(_facts(results, plans)),
    )
    samples = results.arms[0].accuracy.figures[-1].samples
    return html.page(
        f"{results.model}: {' and '.join(names)}",
        f"{results.started}, {samples} samples of {results.dataset.name}",
        body,
    )


def _effect_maps(profile: HeadProfile) -> list[str]:
    if "effect" not in profile.rankings:
        return []
    told: tuple[tuple[Treated, str, str], ...] = (
        ("removed", "removing each head", "change if removed (nats)"),
        ("text_only", "hiding the image from each head", "change if text-only (nats)"),
    )
    return [
        html.figure(
            head_map(ranking(profile, "effect", treatment), label),
            f"Heat map of what {doing} would do, by layer and head",
            f"What {doing} would do to the log-odds of the right answer, to first order.",
        )
        for treatment, doing, label in told
    ]


def _section(section: Section, columns: int) -> str:
    lines = [f'<tr class="section"><th scope="rowgroup" colspan="{columns}">{escape(section.title)}</th></tr>']
    for row in section.rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (row.label, *row.cells, *row.against))
        lines.append(f"{_STRONG if row.strong else '<tr>'}{cells}</tr>")
    return "\n".join(lines)


def _facts(results: DemoResults, plans: Mapping[str, PruningPlan]) -> list[tuple[str, str]]:
    settings = ", ".join(f"{name} {value}" for name, value in sorted(results.dataset.settings.items()))
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
