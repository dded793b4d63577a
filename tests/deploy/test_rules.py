"""Alert and recording rules: promtool's checks, a test of each alert, a section of the runbook for each."""

import re

import expressions
import pytest
import yaml
from expressions import DEPLOY, ROOT, RULES
from tools import run

FOLDER = DEPLOY / "prometheus"
TESTS = sorted(FOLDER.glob("*.test.yml"))
ALERTS = [rule.where for rule in expressions.rules() if rule.kind == "alert"]


def test_promtool_takes_rules_and_configuration() -> None:
    assert f"{len(expressions.rules())} rules found" in run("promtool", "check", "rules", RULES)
    assert "SUCCESS" in run("promtool", "check", "config", FOLDER / "prometheus.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_promtool_s_unit_tests_pass(file: str) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", file, cwd=FOLDER)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_fires_in_one_unit_test_and_is_silent_in_another(alert: str) -> None:
    fires = silent = 0
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for check in test.get("promql_expr_test", []):
                if not re.search(rf"\b{alert}\b", check["expr"]) and "alertname=~" in check["expr"]:
                    continue
                told = [sample["labels"] for sample in check["exp_samples"]]
                if any(f'alertname="{alert}"' in labels for labels in told):
                    fires += 1
                elif "ALERTS" in check["expr"] and alert in check["expr"]:
                    silent += 1
    assert fires
    assert silent


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_section_in_the_runbook(alert: str) -> None:
    rules = {
        rule["alert"]: rule
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    page, _, anchor = rules[alert]["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
    assert rules[alert]["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rules[alert]["annotations"]) == {"summary", "description", "runbook"}
