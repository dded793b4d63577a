"""The Kubernetes overlays: rendered by kustomize, valid by their schemas, and what ours must have beyond that."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from expressions import DEPLOY, ROOT, RULES
from tools import run, tool

from calibrate.demo import MODEL_DIR
from profiles.fingerprint import model_revision
from profiles.store import load_plan

OVERLAYS = DEPLOY / "kubernetes" / "overlays"
SERVERS = ("cpu", "gpu", "canary")
WRITABLE = ("/cache", "/tmp", "/dev/shm")
MODELS = ROOT / ".cache" / "deploy-tools"  # where scripts/install-deploy-tools.sh puts node_modules


@functools.cache
def rendered(overlay: str) -> str:
    return run("kubectl", "kustomize", OVERLAYS / overlay)


def resources(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(overlay)))


def one(overlay: str, kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in resources(overlay) if resource["kind"] == kind]
    return found


def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(overlay, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    (found,) = pod(overlay)["containers"]
    return dict(found)


def flags(overlay: str) -> dict[str, str]:
    return dict(flag[2:].partition("=")[::2] for flag in container(overlay)["args"] if flag.startswith("--"))


def environment(overlay: str) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container(overlay)["env"] if "value" in entry}


@pytest.mark.parametrize("overlay", SERVERS)
def test_resources_are_valid(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(rendered(overlay))
    run("kubernetes-validate", "--strict", tmp_path / "all.yaml")


def test_custom_resources_are_valid() -> None:
    tool("node")
    if not (MODELS / "node_modules" / "@kubernetes-models").exists():
        pytest.skip(
            "the schemas of KEDA and the Prometheus Operator are not installed; `make test-deploy` installs them"
        )
    custom = [resource for resource in resources("monitoring") if resource["kind"] != "ConfigMap"]
    custom.append(yaml.safe_load((DEPLOY / "production-stack" / "scaledobject.yaml").read_text()))
    code = Path(__file__).with_name("check_resources.mjs").read_text()
    said = run("node", "--input-type=module", "--eval", code, cwd=MODELS, given=json.dumps(custom))
    assert said.count("is valid") == 4


@pytest.mark.parametrize("overlay", SERVERS)
def test_the_digest_is_that_of_the_plan_in_the_config_map(overlay: str) -> None:
    plan = load_plan(OVERLAYS / overlay / "plan.json")
    assert one(overlay, "ConfigMap")["data"]["plan.json"] == (OVERLAYS / overlay / "plan.json").read_text()
    assert flags(overlay)["plan-digest"] == "$(PLAN_DIGEST)"
    assert environment(overlay)["PLAN_DIGEST"] == plan.digest
    (volume,) = [volume for volume in pod(overlay)["volumes"] if volume["name"] == "plan"]
    assert volume["configMap"]["name"] == one(overlay, "ConfigMap")["metadata"]["name"]
    assert plan.model.revision == model_revision(MODEL_DIR)  # the model that the overlays serve as they are


@pytest.mark.parametrize("overlay", SERVERS)
def test_arguments_name_variables_that_are_set(overlay: str) -> None:
    for argument in container(overlay)["args"]:
        if "$(" in argument:
            assert argument.partition("$(")[2].rstrip(")") in environment(overlay)


@pytest.mark.parametrize("overlay", SERVERS)
def test_the_runbook_takes_the_right_arguments_out(overlay: str) -> None:
    names = [argument.partition("=")[0] for argument in container(overlay)["args"]]
    assert names[2:4] == ["--plan", "--plan-digest"]
    assert (ROOT / "docs" / "runbook.md").read_text().count('containers/0/args/2"}') == 2


@pytest.mark.parametrize("overlay", SERVERS)
def test_probes_ask_health_and_start_up_has_time(overlay: str) -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container(overlay)[name]["httpGet"] == {"path": "/health", "port": "http"}
    probe = container(overlay)["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 900


@pytest.mark.parametrize("overlay", SERVERS)
def test_a_pod_has_time_to_drain(overlay: str) -> None:
    (_, pause) = container(overlay)["lifecycle"]["preStop"]["exec"]["command"]
    drain = int(flags(overlay)["shutdown-timeout"])
    assert drain > 0
    assert pod(overlay)["terminationGracePeriodSeconds"] > int(pause) + drain


@pytest.mark.parametrize("overlay", SERVERS)
def test_a_pod_can_do_little(overlay: str) -> None:
    security = container(overlay)["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(overlay)["securityContext"]["runAsNonRoot"]
    assert pod(overlay)["securityContext"]["runAsUser"] == 10001
    assert not pod(overlay)["automountServiceAccountToken"]
    mounts = {mount["mountPath"]: mount for mount in container(overlay)["volumeMounts"]}
    assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == set(WRITABLE)
    kinds = {volume["name"]: set(volume) - {"name"} for volume in pod(overlay)["volumes"]}
    assert all(kinds[mounts[path]["name"]] == {"emptyDir"} for path in WRITABLE)
    assert environment(overlay)["HF_HUB_OFFLINE"] == "1"
    assert environment(overlay)["HF_HOME"] in mounts
    (key,) = [entry for entry in container(overlay)["env"] if entry["name"] == "VLLM_API_KEY"]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "vhserve-api-key", "key": "api-key"}}


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_network_policy_lets_nothing_out(overlay: str) -> None:
    policy = one(overlay, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    labels = one(overlay, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for selector in (policy["podSelector"], one(overlay, "PodDisruptionBudget")["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels.items()


def test_the_canary_shares_the_service_but_no_pod() -> None:
    service = one("gpu", "Service")["spec"]["selector"]
    selectors = {}
    for overlay in ("gpu", "canary"):
        spec = one(overlay, "Deployment")["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert service.items() <= labels.items()
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        selectors[overlay] = spec["selector"]["matchLabels"]
    assert selectors["gpu"]["track"] != selectors["canary"]["track"]
    assert one("gpu", "Deployment")["metadata"]["name"] != one("canary", "Deployment")["metadata"]["name"]
    assert environment("gpu")["PLAN_DIGEST"] != environment("canary")["PLAN_DIGEST"]
    assert {resource["kind"] for resource in resources("canary")} == {"ConfigMap", "Deployment"}


def test_monitoring_fits_what_it_watches() -> None:
    deployment = one("gpu", "Deployment")
    assert one("monitoring", "ScaledObject")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    watched = one("monitoring", "PodMonitor")["spec"]
    assert watched["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    jobs = {
        (end["path"], relabeling["replacement"])
        for end in watched["podMetricsEndpoints"]
        for relabeling in end["relabelings"]
        if relabeling["targetLabel"] == "job"
    }
    assert jobs == {("/metrics", "vhserve"), ("/health", "vhserve-health")}
    assert {end["port"] for end in watched["podMetricsEndpoints"]} == {container("gpu")["ports"][0]["name"]}
    assert one("monitoring", "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())


def test_the_production_stack_starts_our_engine_with_our_plan() -> None:
    values = yaml.safe_load((DEPLOY / "production-stack" / "values.yaml").read_text())
    (model,) = values["servingEngineSpec"]["modelSpec"]
    path = {entry["name"]: entry["value"] for entry in model["env"]}["PATH"]
    dockerfile = (DEPLOY / "docker" / "cuda.Dockerfile").read_text()
    assert f"COPY --chmod=755 deploy/docker/vllm {path.split(':')[0]}/vllm" in dockerfile
    assert path.partition(":")[2] in dockerfile
    assert f"--plan-digest={load_plan(OVERLAYS / 'gpu' / 'plan.json').digest}" in model["vllmConfig"]["extraArgs"]
    mounted = {mount["name"]: mount["mountPath"] for mount in model["extraVolumeMounts"]}
    assert {volume["name"] for volume in model["extraVolumes"]} == set(mounted)
