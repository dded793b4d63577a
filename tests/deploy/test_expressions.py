"""Every expression of deploy/ parses, and its `vhserve_` series, labels and bucket bounds are those of the code.

Quick, without a server; `test_live` compares every series, vLLM's too, with a real one.
"""

from typing import Any

import expressions
import pytest
from expressions import Expression

from vhserve.server.metric_definitions import DEFINITIONS

promql = pytest.importorskip("promql_parser", reason="not installed; `make test-deploy` installs it")


UNWATCHED = {"vhserve_image_exit_ratio", "vhserve_plan_accuracy_samples", "vhserve_server_info"}
"""Series that are for looking up, not for watching."""


def selectors(text: str) -> list[Any]:
    found = []

    def visit(node: Any) -> None:
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            found.append(node)

    promql.walk(promql.parse(text), visit)
    return found


def exposed() -> dict[str, dict[str, set[str]]]:
    """Series → label → values, where the code fixes them."""
    known: dict[str, dict[str, set[str]]] = {}
    for name, series in DEFINITIONS.items():
        labels: dict[str, set[str]] = {label: set() for label in series.labels}
        if series.kind == "histogram":
            bounds = {str(bound) for bound in series.buckets} | {"+Inf"}
            known |= {f"{name}_bucket": {**labels, "le": bounds}, f"{name}_count": labels, f"{name}_sum": labels}
        else:
            known[name] = labels
    return known


@pytest.mark.parametrize("one", expressions.every(), ids=str)
def test_it_parses_and_names_what_the_code_exposes(one: Expression) -> None:
    known = exposed()
    for selector in selectors(one.text):
        assert selector.name
        if selector.name.startswith("vhserve_"):
            assert selector.name in known
            for matcher in selector.matchers.matchers:
                if matcher.name not in ("job", "instance", "track"):
                    assert matcher.name in known[selector.name]
                    bounds = known[selector.name][matcher.name]
                    assert not bounds or matcher.value in bounds


def test_every_series_of_ours_is_watched() -> None:
    """A new series belongs on the dashboard or into a rule."""
    named = {selector.name for one in expressions.every() for selector in selectors(one.text)}
    for name in DEFINITIONS:
        assert named & {name, f"{name}_bucket"} or name in UNWATCHED, name
