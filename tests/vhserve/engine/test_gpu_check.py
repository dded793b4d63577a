"""The check of a machine's exactness, in its form for CPUs: what passes, and that a wrong model fails it."""

import copy
import json
import math
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from engine_cases import worst_difference
from engine_host import EngineHost, EngineOutcome, Job
from oracle import TinyModel

from benchmarks import gpu_check
from benchmarks.gpu_check_cases import CPU_CASES, GEOMETRY, GPU_CASES, PLANS, make_model
from profiles.pruning_plan import PruningPlan

CASE = "cpu float32 eager"


def submitted_to(host: EngineHost) -> gpu_check.Submit:
    """Jobs that are done when they are submitted."""

    def submit(job: Job) -> "Future[EngineOutcome]":
        future: Future[EngineOutcome] = Future()
        future.set_result(host.run(job))
        return future

    return submit


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return TinyModel(make_model(tmp_path_factory.mktemp("check") / "tiny"), GEOMETRY)


@pytest.mark.vllm
def test_a_plan_is_as_exact_as_stock_and_a_wrong_model_is_not(engine_host: EngineHost, tiny: TinyModel) -> None:
    cases = {CASE: CPU_CASES[CASE]}
    ((name, row),) = gpu_check.check(submitted_to(engine_host), tiny, cases)
    print(gpu_check.describe(name, row))
    assert row["exact"]
    assert 0 < row["plan"] < 1e-5
    assert 0 < row["stock"] < 1e-5
    assert row["allowed"] == pytest.approx(1.5 * row["stock"] + 1e-5)
    assert gpu_check.verdict([CASE], {CASE: row}) == 0
    # The same answers of the same engines, against a model that keeps two heads' images more.
    served = PLANS[CPU_CASES[CASE].plan](tiny)
    heads = [head for head in served.heads("text_only") if head[0] != 1]
    wrong = PruningPlan.manual(
        tiny.ref, GEOMETRY, text_only=heads, removed=served.heads("removed"), granularity="kv_group"
    )
    ((name, row),) = gpu_check.check(submitted_to(engine_host), tiny, cases, expected=wrong)
    assert not row["exact"]
    assert row["plan"] > 100 * row["allowed"]
    assert "NOT exact" in gpu_check.describe(name, row)
    assert gpu_check.verdict([CASE], {CASE: row}) == 1


@pytest.mark.vllm
def test_an_engine_that_does_not_start_is_not_exact(engine_host: EngineHost, tiny: TinyModel) -> None:
    broken = replace(CPU_CASES[CASE], settings={"max_model_len": 10**7})
    ((name, row),) = gpu_check.check(submitted_to(engine_host), tiny, {"broken": broken})
    assert isinstance(row["plan"], str)
    assert isinstance(row["stock"], str)
    assert not row["exact"]
    assert "did not answer" in gpu_check.describe(name, row)


def test_stock_is_the_yardstick_in_every_type() -> None:
    for dtype, floor in gpu_check.FLOOR.items():
        assert gpu_check.judge(0.3 + 0.9 * floor, 0.2, dtype)["exact"], dtype
        assert not gpu_check.judge(0.3 + 1.1 * floor, 0.2, dtype)["exact"], dtype
    # What an H100 gave: TF32 in Triton's float32, and an FP8 cache.
    assert gpu_check.judge(0.0035, 0.0033, "float32")["exact"]
    assert gpu_check.judge(0.233, 0.207, "bfloat16")["exact"]
    assert {case.dtype for case in (*GPU_CASES.values(), *CPU_CASES.values())} <= set(gpu_check.FLOOR)
    assert {case.plan for case in (*GPU_CASES.values(), *CPU_CASES.values())} == set(PLANS)


def test_what_is_no_number_is_never_exact() -> None:
    for plan, stock in ((math.inf, 0.1), (0.1, math.inf), (math.nan, 0.1), (math.inf, math.inf)):
        assert not gpu_check.judge(plan, stock, "float16")["exact"], (plan, stock)


@pytest.mark.vllm
def test_an_answer_with_a_log_probability_that_is_no_number_is_infinitely_far(
    engine_host: EngineHost, tiny: TinyModel
) -> None:
    case = CPU_CASES[CASE]
    outcome = engine_host.run(gpu_check.job(tiny, case, None))
    for spoilt in (0, -1):
        answers = copy.deepcopy(outcome.answers)
        answers[0][spoilt].log_probs[-1][next(iter(answers[0][spoilt].log_probs[-1]))] = math.nan
        assert worst_difference(tiny.oracle, PLANS[case.plan](tiny), case.rounds, answers) == math.inf


def test_cases_wait_no_longer_than_there_is_time(tiny: TinyModel) -> None:
    never: Future[EngineOutcome] = Future()
    with pytest.raises(TimeoutError):
        next(gpu_check.check(lambda job: never, tiny, CPU_CASES, until=time.monotonic() + 0.1))


def test_fp8_is_checked_in_bfloat16() -> None:
    fp8 = [case for case in GPU_CASES.values() if case.settings.get("kv_cache_dtype") == "fp8"]
    assert [case.dtype for case in fp8] == ["bfloat16"]


def test_cases_that_were_not_run_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.verdict(["a", "b"], {"a": {"exact": True}}) == 1
    assert capsys.readouterr().out == "not run: b\n"


def test_an_unknown_case_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_check.main(["--cases", "no such", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.long
@pytest.mark.vllm
def test_the_command_checks_this_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path / "check"), "--cases", "float32", "--hosts", "2"]) == 0
    report = json.loads((tmp_path / "check.json").read_text())
    assert all(row["exact"] for row in report["cases"].values())
    assert len(report["cases"]) >= 3
    assert {"machine", "commit", "command"} <= set(report)
    assert "exact in every case" in capfd.readouterr().out
    # Again, with one case that was not exact: it alone is run, and what was exact before stays.
    report["cases"][CASE]["exact"] = False
    (tmp_path / "check.json").write_text(json.dumps(report))
    assert gpu_check.main(["--out", str(tmp_path / "check"), "--cases", "float32", "--resume"]) == 0
    assert capfd.readouterr().out.count("exact, plan") == 1
    again = json.loads((tmp_path / "check.json").read_text())
    assert set(again["cases"]) == set(report["cases"])
    assert again["cases"][CASE]["exact"]
