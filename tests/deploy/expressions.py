"""Every PromQL expression of deploy/, with where it stands, and the series that recording rules make.

Knows the files' formats, and what Grafana's variables stand for; not what series exist (`vocabulary`).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "vhserve.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "vhserve.json"
SCALING = (
    DEPLOY / "kubernetes" / "overlays" / "monitoring" / "scaledobject.yaml",
    DEPLOY / "production-stack" / "scaledobject.yaml",
)

GRAFANA = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
"""What stands for Grafana's variables; `All` selects everything."""


@dataclass(frozen=True)
class Expression:
    """One expression; `record` is the series that it makes, `kind` what uses it."""

    kind: str
    where: str
    text: str
    record: str | None = None
    labels: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}"


def rules() -> list[Expression]:
    found = []
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            kind = "record" if "record" in rule else "alert"
            labels = frozenset(rule.get("labels", {}))
            found.append(Expression(kind, where_of(rule), rule["expr"], rule.get("record"), labels))
    return found


def where_of(rule: dict[str, Any]) -> str:
    name = rule.get("record") or rule["alert"]
    return f"{name} {rule['labels']['slo']}" if "slo" in rule.get("labels", {}) else name


def panels() -> list[dict[str, Any]]:
    """Every panel of the dashboard that has queries."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def in_prometheus(text: str) -> str:
    """An expression of the dashboard as Grafana sends it."""
    for variable, value in GRAFANA.items():
        text = text.replace(variable, value)
    assert "$" not in re.sub(r'"[^"]*"', "", text), f"unknown variable in {text}"
    return text


def queries() -> list[Expression]:
    found = [
        Expression("panel", f"{panel['title']} {target['refId']}", in_prometheus(target["expr"]))
        for panel in panels()
        for target in panel["targets"]
    ]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            text = f"count by ({label}) ({in_prometheus(selector)})"
            found.append(Expression("variable", variable["name"], text))
    return found


def triggers() -> list[Expression]:
    """Queries of KEDA's Prometheus triggers, wherever they are in a file."""

    def search(node: Any) -> list[str]:
        if isinstance(node, dict):
            here = [node["metadata"]["query"]] if node.get("type") == "prometheus" else []
            return here + [query for value in node.values() for query in search(value)]
        return [query for value in node for query in search(value)] if isinstance(node, list) else []

    return [
        Expression("scaling", f"{path.parent.name} {number}", query)
        for path in SCALING
        for number, query in enumerate(search(yaml.safe_load(path.read_text())))
    ]


def every() -> list[Expression]:
    return [*rules(), *queries(), *triggers()]
