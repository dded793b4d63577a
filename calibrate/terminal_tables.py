"""Tables in the terminal and in pipes that keep words whole: columns for which a line has no room go below the others.

Knows rich and how wide a line is. Does not know what is in a table.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

PROSE: Final = 32
"""Characters from which a column's words may go on in the next line of its cell."""


class FoldedTable(Table):
    """A table whose first columns name each row; where a line is too short, they are written again above the rest.

    Parameters
    ----------
    keys
        How many columns name a row.
    settings
        As for `rich.table.Table`; titles and captions stand to the left.
    """

    def __init__(self, *, keys: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.keys = keys

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the title, one table for each group of columns, and the caption."""
        yield from self._lines(console, self.title, self.title_style or "table.title", options.max_width)
        for columns in self._groups(console, options.max_width):
            needed = self._total(dict(columns), list(dict(columns)))
            part = options.update(no_wrap=False, overflow="fold", max_width=max(options.max_width, needed))
            yield from self._part(columns).__rich_console__(console, part)
        yield from self._lines(console, self.caption, self.caption_style or "table.caption", options.max_width)

    def _lines(self, console: Console, words: Any, style: Any, width: int) -> RenderResult:
        text = console.render_str(words, style=style) if isinstance(words, str) else words
        for line in wrap(text.plain, width, break_long_words=False, break_on_hyphens=False) if text else ():
            yield Text(line, style=style, no_wrap=True, overflow="ignore", end="\n")

    def _groups(self, console: Console, width: int) -> list[list[tuple[int, int]]]:
        """Columns that stand beside one another, each with its width, the keys first in every group."""
        measured = [self._measured(console, column) for column in self.columns]
        wanted = [max(least, min(most, PROSE)) if most > PROSE else most for least, most in measured]
        keys, rest = list(range(self.keys)), list(range(self.keys, len(self.columns)))
        groups: list[list[int]] = []
        for column in rest:
            if console.is_terminal:  # elsewhere a longer line is better than a broken word
                wanted[column] = min(wanted[column], max(width - self._total([*wanted, 0], [*keys, -1]), 1))
            if groups and self._total(wanted, [*groups[-1], column]) <= width:
                groups[-1].append(column)
            else:
                groups.append([*keys, column])
        return [self._widened(group, wanted, [most for _, most in measured], width) for group in groups or [keys]]

    def _widened(
        self, group: Sequence[int], wanted: Sequence[int], most: Sequence[int], width: int
    ) -> list[tuple[int, int]]:
        """Give what is left of the line to columns whose words would go on in a next line, the first ones first."""
        left = width - self._total(wanted, group)
        found = []
        for column in group:
            more = max(min(left, most[column] - wanted[column]), 0)
            left -= more
            found.append((column, wanted[column] + more))
        return found

    def _total(self, widths: Sequence[int] | Mapping[int, int], group: Sequence[int]) -> int:
        """Characters of a line with these columns, borders and padding included."""
        sides = self.padding[1] + self.padding[3]
        borders = len(group) + 1 if self.box is not None else 0
        return sum(widths[column] + sides for column in group) + borders

    def _measured(self, console: Console, column: Column) -> tuple[int, int]:
        """The longest word and the longest line of a column."""
        cells = [*([column.header] if self.show_header else []), *column.cells]
        texts = [console.render_str(cell) if isinstance(cell, str) else cell for cell in cells]
        found = [console.measure(text, options=console.options.update(width=10_000)) for text in texts]
        return max((one.minimum for one in found), default=0), max((one.maximum for one in found), default=0)

    def _part(self, columns: Sequence[tuple[int, int]]) -> Table:
        part = Table(
            box=self.box,
            padding=self.padding,
            pad_edge=self.pad_edge,
            show_header=self.show_header,
            show_lines=self.show_lines,
            header_style=self.header_style,
        )
        for index, width in columns:
            one = self.columns[index]
            part.add_column(one.header, justify=one.justify, style=one.style, width=max(width, 1), overflow="fold")
        cells = [list(self.columns[index].cells) for index, _ in columns]
        for number, row in enumerate(self.rows):
            part.add_row(*(column[number] for column in cells), style=row.style, end_section=row.end_section)
        return part
