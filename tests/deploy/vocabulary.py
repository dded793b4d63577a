"""Whether an expression can mean anything: its series, labels, values and bucket bounds against what a server shows.

Follows labels through an expression as Prometheus does (docs: querying/operators, querying/functions), so that
`by (le)` over a gauge, or `on (digest)` where one side lost it, is a problem with a name. Knows a scrape; no files.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

promql = pytest.importorskip("promql_parser", reason="not installed; `make test-deploy` installs it")

TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus itself puts on every series."""

OPEN = frozenset({"job", "instance", "track", "digest", "plan", "model_name", "dataset"})
"""Labels whose values differ between deployments; those of all others are fixed by the code."""


@dataclass
class Vocabulary:
    """Series → label → values seen."""

    series: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    @classmethod
    def of_scrape(cls, text: str, target: Iterable[str] = TARGET) -> "Vocabulary":
        """From the text of /metrics; `target` are the labels that scraping adds."""
        known = cls({"up": {}, "ALERTS": {"alertname": set(), "alertstate": set()}})
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = known.series.setdefault(sample.name, {})
                for name, value in sample.labels.items():
                    labels.setdefault(name, set()).add(value)
        for labels in known.series.values():
            for name in target:
                labels.setdefault(name, set())
        return known

    def add(self, record: str, labels: Iterable[str]) -> None:
        """A series that a recording rule makes; its values are not followed."""
        self.series.setdefault(record, {}).update({name: set() for name in labels})

    def problems(self, text: str) -> list[str]:
        """What is wrong with an expression; nothing if it is empty.

        Raises
        ------
        ValueError
            It does not parse.
        """
        return _Check(self).of(promql.parse(text))[1]

    def labels(self, text: str) -> set[str]:
        """Labels of what an expression gives."""
        return _Check(self).of(promql.parse(text))[0]


class _Check:
    """One walk over one expression; each visit gives the labels of its result and the problems below it."""

    def __init__(self, known: Vocabulary) -> None:
        self.known = known

    def of(self, node: Any) -> tuple[set[str], list[str]]:
        visit = getattr(self, f"_{type(node).__name__}", None)
        assert visit is not None, f"no rule for {type(node).__name__}; add one"
        labels, problems = visit(node)
        return labels, problems

    def _NumberLiteral(self, node: Any) -> tuple[set[str], list[str]]:
        return set(), []

    _StringLiteral = _NumberLiteral

    def _ParenExpr(self, node: Any) -> tuple[set[str], list[str]]:
        return self.of(node.expr)

    _UnaryExpr = _SubqueryExpr = _ParenExpr

    def _MatrixSelector(self, node: Any) -> tuple[set[str], list[str]]:
        return self.of(node.vector_selector)

    def _VectorSelector(self, node: Any) -> tuple[set[str], list[str]]:
        labels = self.known.series.get(node.name)
        if labels is None:
            return set(), [f"no series {node.name}"]
        problems = []
        for matcher in node.matchers.matchers:
            seen = labels.get(matcher.name)
            if seen is None:
                problems.append(f"{node.name} has no label {matcher.name}")
            elif matcher.name not in OPEN and seen:
                problems += _values(node.name, matcher, seen)
        return set(labels), problems

    def _AggregateExpr(self, node: Any) -> tuple[set[str], list[str]]:
        labels, problems = self.of(node.expr)
        if node.modifier is None:
            return set(), problems
        named = set(node.modifier.labels)
        if node.modifier.type == promql.AggModifierType.Without:
            return labels - named, problems
        return named, problems + [f"by ({name}), which is not there" for name in sorted(named - labels)]

    def _BinaryExpr(self, node: Any) -> tuple[set[str], list[str]]:
        left, problems = self.of(node.lhs)
        right, more = self.of(node.rhs)
        problems += more
        modifier = node.modifier
        matched = None
        if modifier is not None and modifier.matching is not None:
            matched = set(modifier.matching.labels)
            if modifier.matching.type == promql.LabelModifierType.Include:
                problems += [f"on ({name}), which the left side lacks" for name in sorted(matched - left)]
                problems += [f"on ({name}), which the right side lacks" for name in sorted(matched - right)]
        elif _is_vector(node.lhs) and _is_vector(node.rhs) and left != right and str(node.op) != "or":
            problems.append(f"matched on all labels, but {sorted(left ^ right)} are on one side only")
        if str(node.op) == "or":
            return left | right, problems
        if modifier is not None and modifier.group_labels:
            brought = set(modifier.group_labels)
            return left | brought, problems + [f"group ({name}), which is not there" for name in brought - right]
        return (left if _is_vector(node.lhs) else right), problems

    def _Call(self, node: Any) -> tuple[set[str], list[str]]:
        name = node.func.name
        inner = [self.of(argument) for argument in node.args]
        problems = [problem for _, found in inner for problem in found]
        labels = set().union(*(found for found, _ in inner)) if inner else set()
        if name == "histogram_quantile":
            if "le" not in labels:
                problems.append("histogram_quantile of what has no label le")
            labels = labels - {"le"}
        elif name == "label_replace":
            labels = labels | {node.args[1].val}
            if node.args[3].val and node.args[3].val not in labels:
                problems.append(f"label_replace from {node.args[3].val}, which is not there")
        elif name == "absent":
            labels = {one.name for one in node.args[0].matchers.matchers}
        return labels, problems


def _values(series: str, matcher: Any, seen: set[str]) -> list[str]:
    if matcher.op == promql.MatchOp.Equal:
        return [] if matcher.value in seen else [f"{series} has no {matcher.name}={matcher.value!r}: {sorted(seen)}"]
    if matcher.op == promql.MatchOp.Re:
        options = [matcher.value] if re.search(r"[.*+?()\[]", matcher.value) else matcher.value.split("|")
        return [
            f"{series} has no {matcher.name} like {option!r}: {sorted(seen)}"
            for option in options
            if not any(re.fullmatch(option, value) for value in seen)
        ]
    return []


def _is_vector(node: Any) -> bool:
    if isinstance(node, promql.NumberLiteral):
        return False
    if isinstance(node, promql.ParenExpr | promql.UnaryExpr):
        return _is_vector(node.expr)
    if isinstance(node, promql.BinaryExpr):
        return _is_vector(node.lhs) or _is_vector(node.rhs)
    return not (isinstance(node, promql.Call) and node.func.name in ("time", "vector", "scalar"))
