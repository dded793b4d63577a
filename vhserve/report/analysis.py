"""The page of `vhserve analyze`: findings first, then a section for each analysis, then where it comes from.

Owns the order on the page. What is said and drawn is the analysis' own.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from calibrate.analysis.claims import Finding
from calibrate.analysis.report import Report
from calibrate.analysis.section import Section
from vhserve.report import html

_INTRODUCTION = (
    "Six findings of Bi et al., “Unveiling Visual Perception in Language Models: An Attention Head Analysis Approach” "
    "(CVPR 2025), and whether they hold for this model on these samples. Every claim comes with the number that "
    "decides it and its 95% interval: it holds if the whole interval lies on the claimed side of its bound, it does "
    "not if the interval lies on the other side, and is not decided if it holds the bound. Intervals are over samples "
    "(delete-a-group jackknife where nothing else is said); they say nothing of other datasets or models."
)


def render(report: Report) -> str:
    """Write the page: HTML without references to anything outside."""
    parts = ["<h2>The paper's findings</h2>", f"<p>{escape(_INTRODUCTION)}</p>", _findings(report)]
    parts += [_section(section) for section in report.sections]
    parts += ["<h2>Where this comes from</h2>", html.facts(_facts(report.provenance))]
    return html.page(report.title, report.lead, "\n".join(parts))


def _findings(report: Report) -> str:
    rows = []
    for number, finding in enumerate(report.findings, 1):
        rows.append(
            f'<tr class="section"><th scope="rowgroup" colspan="2">{number}. {escape(finding.title)}: '
            f"{escape(finding.verdict)}<br><small>Paper, {escape(finding.paper)}</small></th></tr>"
        )
        rows += [_claim(finding, index) for index in range(len(finding.claims))]
    return f'<div class="wide"><table class="words"><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>'


def _claim(finding: Finding, index: int) -> str:
    claim = finding.claims[index]
    words = f"{claim.claim[:1].upper()}{claim.claim[1:]}: {claim.found}."
    return f'<tr><td>{escape(words)}</td><td class="verdict">{escape(claim.verdict)}</td></tr>'


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", f"<p>{escape(section.look_for)}</p>"]
    parts += [html.figure(one.svg, one.alt, one.caption) for one in section.figures]
    if section.statements:
        parts.append(f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in section.statements)}</ul>")
    if section.table is not None:
        kind = "dense" if len(section.table.header) > 7 else ""
        parts.append(html.table(section.table.header, section.table.rows, kind))
    return "\n".join(parts)


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _words(value)) for name, value in provenance.items() if value not in (None, {}, [])]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(one)}" for name, one in value.items() if one not in (None, {}))
    return ", ".join(map(_words, value)) if isinstance(value, list) else str(value)
