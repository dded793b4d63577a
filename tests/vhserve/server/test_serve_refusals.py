"""What `vhserve serve` refuses, through the real command: one line on stderr, exit code 2, nothing started.

`test_plan_flags.py` has the whole table of flags.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import TinyModel

from profiles.pruning_plan import PruningPlan
from profiles.store import save


@pytest.fixture(scope="module")
def plan(models: dict[str, TinyModel]) -> PruningPlan:
    return PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, removed=[(0, 0), (0, 1)])


@pytest.fixture
def plan_file(plan: PruningPlan, tmp_path: Path) -> Path:
    save(plan, tmp_path / "plan.json")
    return tmp_path / "plan.json"


def serve(environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vhserve.cli", "serve", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stdout == ""
    for part in parts:
        assert part in done.stderr


def test_a_broken_plan(vllm_environment: dict[str, str], models: dict[str, TinyModel], plan_file: Path) -> None:
    plan_file.write_text(plan_file.read_text()[:-40])
    assert_one_line(serve(vllm_environment, str(models["gqa"].path), "--plan", str(plan_file)), str(plan_file))


def test_another_plan_than_the_one_that_was_asked_for(
    vllm_environment: dict[str, str], models: dict[str, TinyModel], plan_file: Path, plan: PruningPlan
) -> None:
    model = str(models["gqa"].path)
    wanted = f"sha256:{'0' * 64}"
    assert_one_line(
        serve(vllm_environment, model, "--plan", str(plan_file), "--plan-digest", wanted), plan.digest, wanted
    )
    assert_one_line(serve(vllm_environment, model, "--plan-digest", plan.digest), "no plan", plan.digest)


def test_an_unknown_model(vllm_environment: dict[str, str], plan_file: Path) -> None:
    assert_one_line(serve(vllm_environment, "lava-1.5-7b", "--plan", str(plan_file)), "lava-1.5-7b", "llava-1.5-7b")


def test_a_model_that_no_plan_can_be_made_for(
    vllm_environment: dict[str, str], plan_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "opt", "architectures": ["OPTForCausalLM"]}))
    assert_one_line(serve(vllm_environment, str(tmp_path), "--plan", str(plan_file)), "OPTForCausalLM")


@pytest.mark.vllm
def test_a_plan_of_another_model(
    vllm_environment: dict[str, str], models: dict[str, TinyModel], plan_file: Path
) -> None:
    done = serve(vllm_environment, str(models["mha"].path), "--plan", str(plan_file))
    assert_one_line(done, "layers 4", "layers 6", str(models["mha"].path))


@pytest.mark.vllm
def test_flags_that_vllm_finds_not_to_go_together(
    vllm_environment: dict[str, str], models: dict[str, TinyModel]
) -> None:
    done = serve(vllm_environment, str(models["gqa"].path), "--max-num-batched-tokens", "16", "--max-num-seqs", "32")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("vhserve: error: vLLM refuses its flags: max_num_batched_tokens (16)")
    assert "Traceback" not in done.stderr


@pytest.mark.vllm
def test_a_flag_that_a_plan_cannot_have(
    vllm_environment: dict[str, str], models: dict[str, TinyModel], tmp_path: Path
) -> None:
    save(PruningPlan.manual(models["gqa"].ref, models["gqa"].geometry, evict=[(0, 0), (0, 1)]), tmp_path / "plan.json")
    flag, value = "--kv-transfer-config", '{"kv_connector": "NixlConnector", "kv_role": "kv_producer"}'
    done = serve(vllm_environment, str(models["gqa"].path), "--plan", str(tmp_path / "plan.json"), flag, value)
    assert_one_line(done, flag, "KV connector")


@pytest.mark.parametrize(
    ("given", "found"),
    [(None, "a" * 40), ("main", "a" * 40), ("b" * 40, "b" * 40), ("older", "b" * 40), ("missing", "ModelOffline")],
)
def test_what_is_checked_is_the_snapshot_that_vllm_will_load(given: str | None, found: str, tmp_path: Path) -> None:
    """With a model of the Hub's cache that has two snapshots, two names for them, and no weights."""
    cached = tmp_path / "models--owner--tiny"
    for name, commit in (("main", "a" * 40), ("older", "b" * 40)):
        (cached / "snapshots" / commit).mkdir(parents=True)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "snapshots" / commit / "config.json").write_text(json.dumps({"model_type": "llava"}))
        (cached / "refs" / name).write_text(commit)
    code = (
        "import sys; from argparse import Namespace\n"
        "from calibrate.models.registry import find; from profiles.errors import UserError\n"
        "from vhserve.commands.served_model import pin\n"
        "arguments = Namespace(revision=sys.argv[1] or None)\n"
        "try: print(pin(find('owner/tiny'), arguments).name)\n"
        "except UserError as error: print(type(error).__name__)\n"
        "print(arguments.revision)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, given or ""]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    folder, revision = done.stdout.split()
    assert folder == found
    assert revision == (given or found)
