"""Tables at any width: every word whole, every cell there, and no line longer than it must be."""

import io
import random

import pytest
from rich.console import Console
from rich.markup import escape

from calibrate.terminal_tables import FoldedTable

BOX = "│┃┏┓┗┛┡┩└┘├┤┬┴┼╇╈━─┳┻╋ "


def printed(table: FoldedTable, width: int, *, terminal: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, soft_wrap=True, force_terminal=terminal, color_system=None)
    console.print(table)
    return file.getvalue()


def words(text: str) -> set[str]:
    return set(text.translate(dict.fromkeys(map(ord, BOX), " ")).split())


@pytest.mark.parametrize("width", [40, 80, 132])
def test_random_tables_keep_every_word_and_fit(width: int, random_seed: int) -> None:
    draw = random.Random(random_seed)
    for _ in range(30):
        keys, columns, rows = draw.randint(1, 2), draw.randint(2, 9), draw.randint(0, 4)
        longest = draw.choice((6, 12))
        table = FoldedTable(keys=min(keys, columns - 1), title=text(draw, longest, 12), caption=text(draw, longest, 12))
        said = set()
        for _ in range(columns):
            header = text(draw, longest, draw.choice((1, 2)))
            table.add_column(escape(header), justify=draw.choice(("left", "right")))
            said |= words(header)
        for _ in range(rows):
            cells = [text(draw, longest, draw.choice((0, 1, 2, 20))) for _ in range(columns)]
            table.add_row(*map(escape, cells), style=draw.choice((None, "bold")))
            said |= words(" ".join(cells))
        page = printed(table, width)
        assert said <= words(page), (random_seed, said - words(page))
        assert "…" not in page
        narrow = 3 * (32 + 2) + 4  # two keys and a column that are sentences, each on two lines
        assert max(map(len, page.splitlines())) <= max(width, narrow)


def text(draw: random.Random, longest: int, count: int) -> str:
    letters = "abcxyz[]0123456789%"
    return " ".join("".join(draw.choices(letters, k=draw.randint(1, longest))) for _ in range(count))


def test_a_word_longer_than_a_line_is_broken_on_a_terminal_alone() -> None:
    table = FoldedTable()
    table.add_column("key")
    table.add_column("value")
    word = "0123456789" * 12
    table.add_row("a", word)
    assert word in printed(table, 80)
    page = printed(table, 80, terminal=True)
    assert max(map(len, page.splitlines())) <= 80
    assert word in "".join(character for character in page if character.isdigit())


def test_columns_that_fit_stand_in_one_table() -> None:
    table = FoldedTable(title="title")
    for name in ("key", "a", "b"):
        table.add_column(name)
    table.add_row("row", "1", "2")
    page = printed(table, 80)
    assert page.count("key") == 1
    page = printed(table, 12)
    assert page.count("key") == page.count("row") == 2
