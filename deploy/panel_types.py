"""What a panel of the Grafana dashboard is, and a query in it. Knows neither metrics nor Grafana's files."""

from dataclasses import dataclass
from typing import Final

SELECTED: Final = 'job=~"$job", instance=~"$instance"'


@dataclass(frozen=True)
class Query:
    """An expression and the name of its series in the legend. `#` in it stands for the selected servers."""

    expr: str
    legend: str

    @property
    def selected(self) -> str:
        return self.expr.replace("#", SELECTED)


@dataclass(frozen=True)
class Panel:
    """One graph, or with `kind` one number or one table."""

    title: str
    about: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    most: float | None = None
