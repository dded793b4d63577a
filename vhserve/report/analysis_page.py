"""The page of `vhserve analyze`: findings first, then a section for each analysis, then where it comes from.

Owns how the facts are worded. What is said and drawn is the analysis' own, the order on the page its template's.
"""

from collections.abc import Mapping
from typing import Any

from calibrate.analysis.document import Report
from profiles.head_profile import PICTURES
from vhserve.report import html


def render(report: Report) -> str:
    """Write the page: HTML without references to anything outside."""
    return html.render(
        "analysis",
        title=report.title,
        lead=report.lead,
        findings=report.findings,
        sections=report.sections,
        facts=_facts(report.provenance),
    )


def _facts(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _words(value)) for name, value in provenance.items() if value not in (None, {}, [])]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = {name: one for name, one in value.items() if one not in (None, {}) and name != PICTURES}
        return ", ".join(f"{name} {_words(one)}" for name, one in shown.items())
    return ", ".join(map(_words, value)) if isinstance(value, list) else str(value)
