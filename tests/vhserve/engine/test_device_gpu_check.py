"""Cases of the machine's check that only a GPU has, with what stands in for one: each starts, answers and is judged.

On `device_host` with Triton attention, float32, two short prompts and graphs of few sizes, because the interpreter is
slow. So what is shown is that a case's settings, plan, patches and probe go together, and not what a GPU computes.
"""

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from engine_host import EngineHost, EngineOutcome, Job
from oracle import TinyModel

from benchmarks import gpu_check
from benchmarks.gpu_check_cases import GEOMETRY, GPU_CASES, PROMPTS, Case, make_model

pytestmark = [pytest.mark.vllm, pytest.mark.long]

CASES = ("flash float16 exit", "triton bfloat16 int8 cache")


def emulated(case: Case) -> Case:
    """The case as the interpreter can run it in seconds."""
    settings: dict[str, Any] = {**case.settings, "max_num_batched_tokens": 256}
    patches = ("triton_attention", *case.patches)
    if "compilation_config" in settings:
        settings["compilation_config"] = {**settings["compilation_config"], "cudagraph_capture_sizes": [2]}
        patches += ("graphs",)
    rounds = tuple(replace(one, prompts=(PROMPTS[0], PROMPTS[2]), tokens=3) for one in case.rounds)
    return replace(case, backend="TRITON_ATTN", dtype="float32", settings=settings, rounds=rounds, patches=patches)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return TinyModel(make_model(tmp_path_factory.mktemp("check") / "tiny"), GEOMETRY)


@pytest.mark.parametrize("name", CASES)
def test_a_case_of_gpus_is_run_and_exact(name: str, device_host: EngineHost, tiny: TinyModel) -> None:
    case = emulated(GPU_CASES[name])

    def submit(job: Job) -> "Future[EngineOutcome]":
        future: Future[EngineOutcome] = Future()
        future.set_result(device_host.run(replace(job, patches=case.patches)))  # stock's, too
        return future

    ((said, row),) = gpu_check.check(submit, tiny, {name: case})
    print(gpu_check.describe(said, row))
    assert row["exact"]
    quantised = "kv_cache_dtype" in case.settings
    assert all((1e-3 if quantised else 0) < row[arm] < (1 if quantised else 1e-5) for arm in ("plan", "stock"))
