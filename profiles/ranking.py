"""One ranking of a head profile: a number for every query head, or one for every treatment of it; of KV groups too.

Owns the names that rankings may have and the ranges of those that FORMAT.md lists. Does not know how a number comes
about, nor what is done with an order (`profiles.planning`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, PositiveInt, model_validator

from profiles.errors import MissingField, UnknownField, WrongValue
from profiles.geometry import Name
from profiles.names import TREATED, Treated
from profiles.strict import Strict, defect

Rows = list[list[float]]
"""Indexed ``[layer][query head]``."""

ALL: Final = "all"
"""Key of a table that is the same for every treatment."""

# Sums of attention in float32 or bfloat16 pass 1 by rounding.
_SHARE = (0.0, 1.001)
_NOT_NEGATIVE = (0.0, float("inf"))
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "image_weight": _SHARE,
    "concentration": _SHARE,
    "box_weight": _SHARE,
    "score": _NOT_NEGATIVE,
    "effect": _NOT_NEGATIVE,
    "gradient": _NOT_NEGATIVE,
}
"""Lowest and highest value of the rankings that FORMAT.md gives a range; others may hold any finite number."""

WELL_FORMED: Final = "a to z first, then a to z, 0 to 9 and _; at most 64 characters"


def is_well_formed(name: str) -> bool:
    """Whether a ranking may have this name."""
    return re.fullmatch("[a-z][a-z0-9_]{0,63}", name) is not None


def _check_name(name: str) -> str:
    if not is_well_formed(name):
        raise defect(WrongValue, "", f"is {name!a:.60}", expected=f"the name of a ranking: {WELL_FORMED}")
    return name


RankingName = Annotated[str, AfterValidator(_check_name)]


class Ranking(Strict):
    """What every query head is worth by one measure; higher means keep.

    Attributes
    ----------
    tables
        Under ``all`` the one table, where it is the same for every treatment; else a table under the name of each
        treatment that it is known for.
    group_tables
        Of a grouped-query model, tables under the same keys with what each KV group is worth, ``[layer][KV head]``,
        measured with all its query heads treated at once; None where a group is worth the mean of its query heads.
    block_size
        Of the image blocks that a text-only head would not see, in tokens; None for single image tokens, and where no
        value depends on it.
    source, digest
        Of an imported ranking: name of the file, and ``sha256:…`` of its bytes; else None.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"group_tables"})

    tables: dict[str, Rows]
    group_tables: dict[str, Rows] | None = None
    block_size: PositiveInt | None = None
    source: Name | None = None
    digest: Name | None = None

    @classmethod
    def of(cls, rows: Any, **fields: Any) -> Self:
        """A ranking that is the same for every treatment, of an array or list ``(layers, query heads)``."""
        return cls(tables={ALL: rows.tolist() if hasattr(rows, "tolist") else rows}, **fields)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.tables:
            raise defect(MissingField, f"tables.{ALL}", "is missing", expected="a table")
        for key in self.tables:
            if key != ALL and key not in TREATED:
                expected = f"{ALL}, or {' and '.join(TREATED)}"
                raise defect(UnknownField, f"tables[{key!a:.60}]", "is not a field", expected=expected)
            if key != ALL and ALL in self.tables:
                raise defect(WrongValue, f"tables.{key}", f"is given beside {ALL}", expected=f"{ALL} by itself, or not")
        if self.group_tables is not None and self.group_tables.keys() != self.tables.keys():
            found, expected = (
                f"has {', '.join(self.group_tables) or 'nothing'}",
                f"{', '.join(self.tables)}, as tables has",
            )
            raise defect(WrongValue, "group_tables", found, expected=expected)
        if (self.source is None) != (self.digest is None):
            expected = "both of source and digest, or neither"
            raise defect(WrongValue, "digest", "is null without source, or given alone", expected=expected)
        return self

    def table(self, treatment: Treated) -> Rows | None:
        """The table for a treatment, ``[layer][query head]``; None where it was not measured."""
        return self.tables.get(ALL, self.tables.get(treatment))

    def group_table(self, treatment: Treated) -> Rows | None:
        """What was measured of KV groups for a treatment, ``[layer][KV head]``; None where it was not."""
        tables = self.group_tables or {}
        return tables.get(ALL, tables.get(treatment))


def out_of_range(name: str, rows: Rows) -> Iterator[tuple[int, int, str]]:
    """Entries that a ranking of this name may not have: layer, head, and what would be right."""
    low, high = RANGES.get(name, (float("-inf"), float("inf")))
    for layer, row in enumerate(rows):
        for head, value in enumerate(row):
            if not low <= value <= high:
                yield layer, head, f"{low:g} to {high:g}" if high < float("inf") else f"at least {low:g}"
