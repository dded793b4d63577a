"""Makes the files of deploy/ that say again what another file says: `python deploy/generate.py`.

- grafana/dashboards/vhserve.json, from the panels in dashboard.py, through Grafana's own typed model of a dashboard;
- kubernetes/overlays/monitoring/rules.yaml, the Prometheus Operator's wrapping of prometheus/vhserve.rules.yml.

Knows where files lie. A test compares what it makes with what is there.
"""

import json
import sys
from pathlib import Path
from typing import Final

import yaml

DEPLOY: Final = Path(__file__).parent
sys.path.insert(0, str(DEPLOY))

DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "vhserve.json"
RULES: Final = DEPLOY / "prometheus" / "vhserve.rules.yml"
PROMETHEUS_RULE: Final = DEPLOY / "kubernetes" / "overlays" / "monitoring" / "rules.yaml"

_HEAD: Final = "# Made from prometheus/vhserve.rules.yml by deploy/generate.py; edit that.\n"


class _Literal(yaml.SafeDumper):
    """Writes expressions of several lines as they are read, and keeps the order of keys."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _string)


def prometheus_rule() -> str:
    """The rules as the Prometheus Operator takes them."""
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "vhserve"},
        "spec": yaml.safe_load(RULES.read_text()),
    }
    return _HEAD + yaml.dump(document, Dumper=_Literal, sort_keys=False, width=10_000)


def made() -> dict[Path, str]:
    """Content of each file that is made."""
    from dashboard import dashboard
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    text = json.dumps(dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True)
    return {DASHBOARD: text + "\n", PROMETHEUS_RULE: prometheus_rule()}


if __name__ == "__main__":
    for path, content in made().items():
        path.write_text(content)
        print(path.relative_to(DEPLOY.parent))
