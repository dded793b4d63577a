"""`vhserve demo`: what it refuses, what it starts, and (long) the whole of it on a tiny model."""

import subprocess
import sys
from pathlib import Path

import pytest
from result_factories import arm as arm_of
from result_factories import demo_results
from tiny_models import make_tiny_llava

from calibrate.demo import MODEL_DIR
from profiles.planning.layout import layer_layouts
from profiles.store import load_plan, load_profile
from vhserve.cli import main
from vhserve.commands.demo import conclude
from vhserve.demo.arms import demo_arms
from vhserve.demo.options import DemoOptions
from vhserve.demo.results import DemoResults
from vhserve.demo.steps import process_environment, serve_command
from vhserve.engine.kv_cache.lanes import PromptBlocks, lanes_of
from vhserve.engine.kv_cache.saving import prompt_saving


def test_servers_listen_on_loopback_and_only_the_pruned_one_has_a_plan(tmp_path: Path) -> None:
    options = DemoOptions(out=tmp_path, remove=8, text_only=24, stage="late", seed=3)
    baseline, pruned, control = demo_arms(options)
    assert baseline.plan is None
    budget, rest = "--remove 8 --text-only 24 --stage late", "--rank-by effect --protect-top 10 --seed 3"
    assert " ".join(pruned.plan) == f"{budget} --select bottom {rest}"
    assert " ".join(control.plan) == f"{budget} --select random {rest}"
    assert "8 late heads" in pruned.about
    assert "24 keep no image, ranked lowest by effect" in pruned.about
    assert "at random" in control.about
    bare = serve_command(options, None, 1234, 576)
    planned = serve_command(options, tmp_path / "plan.json", 1234, 576)
    assert bare[bare.index("--host") + 1] == "127.0.0.1"
    assert int(bare[bare.index("--max-model-len") + 1]) > 576
    assert set(planned) - set(bare) == {"--plan", str(tmp_path / "plan.json")}
    assert process_environment(options)["HF_HUB_OFFLINE"] == "1"


def test_an_output_folder_that_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["demo", "--out", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["demo", "--concurrency", "1,0", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_heads_of_a_model_without_a_short_name_are_counted_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((MODEL_DIR / "config.json").read_text())
    command = [sys.executable, "-m", "vhserve.cli", "demo", "--model", str(tmp_path), "--remove", "1000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2, done.stderr  # a process of its own, in which nothing has mended torchvision
    assert "the model has 96" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_step_that_fails_names_itself_and_its_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text((MODEL_DIR / "config.json").read_text())  # and no weights
    assert main(["demo", "--model", str(model), "--out", str(tmp_path)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "step calibrate" in line
    assert str(tmp_path / "calibrate.log") in line
    assert str(model) in (tmp_path / "calibrate.log").read_text()
    assert not (tmp_path / "report.html").exists()


def warnings_of(results: DemoResults, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code, and the lines on standard error."""
    try:
        conclude(results)
        code = 0
    except SystemExit as exit_:
        code = int(str(exit_.code))
    return code, capsys.readouterr().err.splitlines()


def test_a_server_that_answers_nothing_is_exit_code_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    results = demo_results()
    first, second = results.arms
    assert warnings_of(results, capsys)[0] == 0
    silent = second.model_copy(update={"accuracy": arm_of("e" * 10, second.name)})
    code, lines = warnings_of(results.model_copy(update={"arms": [first, silent]}), capsys)
    assert code == 1
    (line,) = lines
    assert f"{second.name} answered nothing: 10 requests failed" in line
    assert "status 500: no" in line


def test_latencies_of_which_no_request_succeeded_are_exit_code_1_too(capsys: pytest.CaptureFixture[str]) -> None:
    results = demo_results()
    first = results.arms[0]
    lost = {"requests": 0, "failed": 24, "ttft_ms": None, "tpot_ms": None, "first_error": "Timeout: late"}
    latency = [first.latency[0].model_copy(update=lost), *first.latency[1:]]
    arms = [first.model_copy(update={"latency": latency}), *results.arms[1:]]
    code, lines = warnings_of(results.model_copy(update={"arms": arms}), capsys)
    assert code == 1
    assert "baseline at 1 at a time answered nothing: no latency is known; the first error: Timeout: late" in lines[-1]


def test_a_model_that_is_never_right_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    results = demo_results()
    wrong = results.arms[0].model_copy(update={"accuracy": arm_of("wwwwwooooo")})
    code, lines = warnings_of(results.model_copy(update={"arms": [wrong, *results.arms[1:]]}), capsys)
    assert code == 0
    assert "baseline answers none of 10 samples right" in lines[-1]


@pytest.mark.long
@pytest.mark.vllm
@pytest.mark.timeout(1500)
def test_the_whole_demo_on_a_tiny_model(tmp_path: Path) -> None:
    model = make_tiny_llava(tmp_path / "model")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vhserve.cli", "demo", "--model", str(model), "--out", str(out)]
    command += ["--samples", "16", "--calibration-samples", "16", "--remove", "3", "--text-only", "4"]
    command += ["--requests", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "capacity in text tokens" in done.stdout
    results = DemoResults.model_validate_json((out / "results.json").read_text(), strict=True)
    plan, profile = load_plan(out / "plan-pruned.json"), load_profile(out / "profile.json")
    baseline, pruned, control = results.arms
    assert results.profile_digest == profile.digest == plan.profile_digest
    assert pruned.accuracy.server.plan_digest == plan.digest
    assert baseline.accuracy.server.plan_digest is None
    assert [len(arm.accuracy.answers) for arm in results.arms] == [16, 16, 16]
    assert not any(answer.error for arm in results.arms for answer in arm.accuracy.answers)
    assert {(one.arm, one.family) for one in plan.measured} >= {("baseline", "all"), ("pruned", "all")}
    heads = profile.geometry.layers * profile.geometry.kv_heads
    assert pruned.heads["removed"] == control.heads["removed"] == 3
    assert pruned.heads["text_only"] == control.heads["text_only"] == 4
    fits = pruned.capacity_image_prompts / baseline.capacity_image_prompts
    assert plan.block_size is not None
    assert fits == pytest.approx(prompt_saving(plan, plan.block_size).concurrency, rel=0.02)
    assert load_plan(out / "plan-random.json").treatments != plan.treatments
    assert pruned.kv_bytes_per_token / baseline.kv_bytes_per_token == pytest.approx((heads - 3) / heads)
    lanes = lanes_of(layer_layouts(plan), 81, plan.block_size)
    assert lanes is not None
    held = lanes.held(PromptBlocks(1), "prompt")  # padding included, which few heads take most of
    assert pruned.capacity_tokens / baseline.capacity_tokens == pytest.approx(heads / held, rel=0.02)
    for arm in results.arms:
        assert [one.concurrency for one in arm.latency] == [1, 8]
        assert all(one.failed == 0 and one.ttft_ms and one.tpot_ms for one in arm.latency)
    assert "capacity in text tokens" in (out / "report.html").read_text()
