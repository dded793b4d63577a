"""What the analysis hands to its page and writes as JSON: findings, sections, and what made them.

Owns the document. Does not know how a section is worked out, nor what the page looks like.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from calibrate.analysis.claims import Finding
from calibrate.analysis.section import Cell, CsvRow, Section, short

FORMAT: Final = "vhserve.analysis"


@dataclass(frozen=True)
class Report:
    """Everything that a page shows.

    Attributes
    ----------
    title, lead
        Heading, and what was measured, in a line.
    findings, sections
        In their order.
    provenance
        What made it, by name; enough to make it again.
    """

    title: str
    lead: str
    findings: Sequence[Finding]
    sections: Sequence[Section]
    provenance: Mapping[str, Any]

    def document(self) -> str:
        """The numbers as one JSON document."""
        found = [asdict(one) | {"verdict": one.verdict} for one in self.findings]
        sections = {
            one.name: {"title": one.title, "statements": list(one.statements), "rows": _short(one.rows)}
            for one in self.sections
        }
        content = {"format": FORMAT, "version": 1, **self.provenance, "findings": found, "sections": sections}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _short(rows: Sequence[CsvRow]) -> list[dict[str, Cell]]:
    return [{name: short(cell) for name, cell in row.items()} for row in rows]
