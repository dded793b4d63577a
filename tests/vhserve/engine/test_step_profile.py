"""What the benchmarks' profile sees of the steps of a real engine, with a plan and without: operations by kind."""

from collections import Counter
from dataclasses import dataclass

import pytest
from engine_cases import Case
from engine_host import EngineHost, Job
from oracle import TinyModel
from profile_probes import REQUESTS

from benchmarks.kernel_kinds import ATTENTION, CACHE, GEMM, KINDS, MOVING, kind_of
from benchmarks.step_profile import Profiled

pytestmark = pytest.mark.vllm

PLAN = Case("mha", text_only=dict.fromkeys(range(6), (0, 1, 2)))
GIVEN = {"settings": {"kv_cache_memory_bytes": 8 << 20, "max_num_seqs": 64}, "probe": "profile_probes:profiles"}


@dataclass(frozen=True)
class Seen:
    """What was profiled of an engine, and how many attentions a step of it has: one a layer, or two."""

    phases: dict[str, Profiled]
    held: tuple[dict[str, int], dict[str, int]]
    attentions: int


@pytest.fixture(scope="module", params=["stock", "plan"])
def seen(request: pytest.FixtureRequest, engine_host: EngineHost, models: dict[str, TinyModel]) -> Seen:
    model = models["mha"]
    plan = None if request.param == "stock" else PLAN.plan(model).model_dump(mode="json")
    outcome = engine_host.run(Job(str(model.path), plan, **GIVEN))
    assert outcome.failure is None, outcome.failure[1]
    held = outcome.probed.pop("held")
    return Seen(outcome.probed, held, 6 if plan is None else 12)


def seconds(profiled: Profiled) -> Counter[str]:
    counted: Counter[str] = Counter()
    for kernel in profiled.kernels:
        counted[kind_of(kernel.name)] += kernel.seconds
    return counted


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_steps_are_seen_by_kind(seen: Seen, phase: str) -> None:
    profiled = seen.phases[phase]
    counted = seconds(profiled)
    print({kind: f"{1000 * counted[kind]:.2f} ms" for kind in KINDS})
    assert not profiled.device
    for kind in (GEMM, ATTENTION, CACHE, MOVING):
        assert counted[kind] > 0, kind


def test_a_step_of_replies_has_the_attentions_of_its_layers_and_no_prompt(seen: Seen) -> None:
    decode = seen.phases["decode"]
    assert (decode.steps, decode.tokens) == (4, 0)
    (calls,) = (kernel.calls for kernel in decode.kernels if kernel.name.endswith("cpu_attention_with_kv_cache"))
    assert calls == seen.attentions * decode.steps


def test_a_prefill_is_all_of_its_prompts(seen: Seen) -> None:
    prefill = seen.phases["prefill"]
    assert prefill.steps > 0
    assert prefill.tokens > REQUESTS * 30


def test_more_requests_than_fit_have_no_steps_and_leave_nothing_behind(seen: Seen) -> None:
    assert seen.phases["too many"].steps == 0
    before, after = seen.held
    assert after == before
