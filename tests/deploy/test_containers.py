"""Dockerfiles and compose files: hadolint, the Compose specification's schema, and what ours must have beyond both."""

import re
from pathlib import Path

import pytest
import yaml
from expressions import DEPLOY, ROOT
from tools import run

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = DEPLOY / "compose" / "compose.yaml"


def instructions(file: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    return [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    run("hadolint", "--no-color", "--failure-threshold", "style", file)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_runs_as_a_fixed_user_and_checks_its_health(file: Path) -> None:
    last = instructions(file)[-12:]
    assert "USER 10001:10001" in last
    (check,) = [line for line in last if line.startswith("HEALTHCHECK")]
    assert "/health" in check
    assert not [line for line in last[last.index("USER 10001:10001") + 1 :] if line.startswith(("USER", "RUN"))]


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_an_image_copies_is_there_and_not_ignored(file: Path) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in instructions(file):
        if line.startswith("COPY") and "--from" not in line:
            for source in [word for word in line.split()[1:-1] if not word.startswith("--")]:
                assert (ROOT / source).exists(), source
                assert source in sent, source


@pytest.mark.parametrize("file", sorted((DEPLOY / "compose").glob("*.yaml")), ids=lambda file: file.name)
def test_compose_files_follow_the_specification(file: Path) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


def test_compose_publishes_on_loopback_only_and_drops_privileges() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"vhserve", "prometheus", "grafana"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"], name
    assert services["vhserve"]["read_only"]
    flags = dict(flag[2:].partition("=")[::2] for flag in services["vhserve"]["command"] if flag.startswith("--"))
    assert int(services["vhserve"]["stop_grace_period"][:-1]) > int(flags["shutdown-timeout"])


def test_files_that_compose_mounts_are_there() -> None:
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        for volume in service["volumes"]:
            source = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).exists(), source


def test_grafana_finds_what_is_mounted_for_it() -> None:
    mounts = [volume.split(":")[1] for volume in yaml.safe_load(COMPOSE.read_text())["services"]["grafana"]["volumes"]]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "vhserve.yml").read_text())["providers"]
    assert provider["options"]["path"] in mounts
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
