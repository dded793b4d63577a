"""A revision that is cached without `refs/main`, as `hf download --revision COMMIT` leaves it, is measured and served.

Offline, in processes of their own: the Hub's client reads its environment when it is imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_cache import COMMIT, cache_snapshot
from oracle import TinyModel

from profiles.geometry import ModelRef
from profiles.pruning_plan import PruningPlan
from profiles.store import load_profile, save

NAME = "owner/tiny"
OTHER = "f" * 40


def vhserve(folder: Path, environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vhserve.cli", *map(str, words)]
    offline = {**environment, "HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=offline, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def plan_file(models: dict[str, TinyModel], tmp_path: Path) -> Path:
    """Of the model in the cache, whose revision is its commit."""
    model = models["gqa"]
    cache_snapshot(tmp_path / "hub", model.path, NAME)
    ref = ModelRef(name=NAME, revision=COMMIT, architecture=model.architecture)
    save(PruningPlan.manual(ref, model.geometry, removed=[(0, 0), (0, 1)]), tmp_path / "plan.json")
    return tmp_path / "plan.json"


@pytest.mark.parametrize(
    "given", [["--revision", COMMIT], ["--revision", COMMIT[:10]], []], ids=["commit", "short", "none"]
)
def test_it_is_calibrated(given: list[str], models: dict[str, TinyModel], tmp_path: Path) -> None:
    cache_snapshot(tmp_path / "hub", models["gqa"].path, NAME)
    out = tmp_path / "profile.json"
    flags = ["--samples", "2", "--no-effects", "--device", "cpu", "--out", out]
    done = vhserve(tmp_path, dict(os.environ), "calibrate", "--model", NAME, *given, *flags)
    assert done.returncode == 0, done.stderr
    profile = load_profile(out)
    assert (profile.model.name, profile.model.revision) == (NAME, COMMIT)


@pytest.mark.parametrize(
    "given", [["--revision", COMMIT], ["--revision", COMMIT[:10]], []], ids=["commit", "short", "none"]
)
def test_serve_finds_its_files_before_vllm_is_imported(given: list[str], plan_file: Path, tmp_path: Path) -> None:
    """The last refusal that comes without vLLM reads the model's configuration."""
    words = ["serve", NAME, "--plan", plan_file, "--port", "0", "--kv-cache-memory-bytes", "9k"]
    done = vhserve(tmp_path, dict(os.environ), *words, *given)
    assert done.returncode == 2
    assert "the model's 2048 tokens" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["calibrate", "serve"])
def test_another_revision_is_named_with_those_that_are_cached(command: str, plan_file: Path, tmp_path: Path) -> None:
    words = {
        "calibrate": ["calibrate", "--model", NAME, "--out", tmp_path / "profile.json"],
        "serve": ["serve", NAME, "--plan", plan_file, "--port", "0"],
    }
    done = vhserve(tmp_path, dict(os.environ), *words[command], "--revision", OTHER)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert OTHER in done.stderr
    assert COMMIT in done.stderr


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_s_configuration_finds_it_too(plan_file: Path, vllm_environment: dict[str, str], tmp_path: Path) -> None:
    words = ["serve", NAME, "--plan", plan_file, "--port", "0", "--dtype", "float32", "--dry-run", "--json"]
    done = vhserve(tmp_path, vllm_environment, *words, "--revision", COMMIT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["blocks"] > 1
    assert f"{NAME} is the model of {plan_file}: " in done.stderr
