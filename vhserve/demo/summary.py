"""The table that `vhserve demo` prints. Knows rich; the words are those of `rows`."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from calibrate.terminal_tables import FoldedTable
from vhserve.demo.results import DemoResults
from vhserve.demo.rows import sections


def summary_table(results: DemoResults) -> Table:
    """Lay the report's rows out for the terminal."""
    first = results.arms[0].name
    names = " and ".join(arm.name for arm in results.arms)
    table = FoldedTable(title=escape(f"{results.model}: {names}"), box=SIMPLE_HEAD)
    table.add_column("")
    for arm in results.arms:
        table.add_column(escape(arm.name), justify="right")
    for arm in results.arms[1:]:
        table.add_column(escape(f"{arm.name}\nagainst {first}"), justify="right")
    for section in sections(results):
        table.add_row(escape(section.title), style="bold cyan")
        for row in section.rows:
            cells = [escape(cell) for cell in (f"  {row.label}", *row.cells, *row.against)]
            table.add_row(*cells, style="bold" if row.strong else None)
        table.add_section()
    return table
