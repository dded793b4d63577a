"""CUDA graphs of a plan's decode steps and of the pieces between attention, replayed as a GPU would, without one.

On `device_host` with Triton attention; `recorded_graphs` says what stands in for the graphs. With stock vLLM, that this
is faithful; with plans, against the masked transformers model, float32 within 1e-5.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from engine_cases import Case, EngineRuns, worst_difference
from engine_host import EngineHost, EngineOutcome, Job, Round
from engine_prompts import EnginePrompt
from exactness import EXACT, TELLING
from oracle import TinyModel
from text_only_probes import QUESTION

from profiles.pruning_plan import PruningPlan

pytestmark = pytest.mark.vllm

SIZES = (1, 2, 4)
"""Of decode graphs, in requests."""
PATCHES = ("triton_attention", "graphs")
DECODE: dict[str, Any] = {
    "enforce_eager": False,
    "max_num_seqs": SIZES[-1],
    "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": list(SIZES)},
}
PIECES: dict[str, Any] = {
    **DECODE,
    "max_num_batched_tokens": 128,
    "compilation_config": {
        "mode": 3,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [*SIZES, 32, 64, 128],
    },
}
"""What vLLM chooses on a GPU: a graph of each decode step, and for others a graph of what lies between attention."""

ASKED = (EnginePrompt(QUESTION, (1,)), EnginePrompt("<s>yes no"), EnginePrompt("<s>USER: what is <image>", (2,)))
ROUNDS = (Round(ASKED, tokens=5), Round(ASKED[:2], tokens=3, reset=False))

GROUPED: dict[str, Any] = {"text_only": {0: (0, 1), 2: (0, 1, 2, 3)}, "removed": {3: (2, 3)}}
EVICTED: dict[str, Any] = {
    "other": {"evict": {0: (0, 1), 1: (2, 3, 4, 5), 2: (2, 3)}, "thinned:2": {3: (0, 1)}},
    "text_only": {2: (0, 1), 3: (2, 3)},
    "removed": {2: (4, 5)},
}
LATE: dict[str, Any] = {
    "text_only": {0: (0, 1), 2: (0, 1, 4, 5), 3: tuple(range(6))},
    "removed": {2: (2, 3)},
}


def graph_case(heads: Mapping[str, Any], settings: dict[str, Any], **more: Any) -> Case:
    rest = {"rounds": ROUNDS, "patches": PATCHES, "probe": "graph_probes:replays", **more}
    return Case("gqa", granularity="kv_group", settings=settings, **heads, **rest)


AHEAD = {"async_scheduling": True}
CASES = {
    "decode": graph_case(GROUPED, DECODE, rounds=(Round(ASKED, tokens=4),)),
    "pieces": graph_case(GROUPED, PIECES),
    "pieces_late_layers": graph_case(LATE, PIECES),
    "pieces_evicted": graph_case(EVICTED, PIECES),
    "pieces_async": graph_case(EVICTED, {**PIECES, **AHEAD}, patches=(*PATCHES, "async_scheduling")),
    # vLLM runs a step of one token for each request as decode, though the tokens are of an image.
    "trickle": graph_case(GROUPED, DECODE, rounds=(), probe="graph_probes:trickle"),
    "trickle_async": graph_case(
        LATE, {**DECODE, **AHEAD}, rounds=(), patches=(*PATCHES, "async_scheduling"), probe="graph_probes:trickle"
    ),
}
QUICK = {"decode"}


def marked(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in names]


@pytest.fixture(scope="session")
def served(device_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(device_host, models, CASES)


@pytest.mark.parametrize("name", marked([name for name, case in CASES.items() if case.rounds]))
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT
    outcome, case = served(name), CASES[name]
    # A step for each token of a reply but the first; the requests of a round are asked together.
    steps = sum(one.tokens - 1 for one in case.rounds)
    assert outcome.probed["captured"] >= len(SIZES)
    if case.settings["compilation_config"]["mode"]:
        assert outcome.probed["replayed"] > 2 * steps  # several pieces of each other step, too
    else:
        assert outcome.probed["replayed"] >= steps
    assert bool(outcome.facts["async"]) == ("async_scheduling" in case.patches)


@pytest.mark.long
@pytest.mark.parametrize("name", ["trickle", "trickle_async"])
def test_images_that_come_by_the_token(name: str, served: EngineRuns, models: dict[str, TinyModel]) -> None:
    case, model = CASES[name], models["gqa"]
    probed = served(name).probed
    assert probed["replayed"] - probed["before"].get("replayed", 0) >= probed["steps"] > 3
    for prompt, answer in probed["answers"]:
        assert model.oracle.difference(prompt, answer, case.plan(model)) < EXACT


# --- the stand-ins are faithful ---


def stock(host: EngineHost, models: dict[str, TinyModel], *patches: str, **settings: Any) -> tuple[float, Any]:
    """Largest difference of stock vLLM from transformers, and its replays."""
    model = models["gqa"]
    job = Job(
        str(model.path),
        None,
        (Round(ASKED, tokens=4),),
        settings,
        ("triton_attention", *patches),
        "graph_probes:replays",
    )
    outcome: EngineOutcome = host.run(job)
    assert outcome.failure is None, outcome.failure[1]
    full = PruningPlan.manual(model.ref, model.geometry)
    return worst_difference(model.oracle, full, job.rounds, outcome.answers), outcome.probed


@pytest.mark.long
@pytest.mark.parametrize("settings", [DECODE, PIECES], ids=["decode", "pieces"])
def test_stock_vllm_says_the_same_with_graphs(
    settings: dict[str, Any], device_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    difference, counts = stock(device_host, models, "graphs", **settings)
    assert counts["replayed"] >= 3
    assert counts["operations"] > 50 * 3
    if settings is PIECES:  # of decode graphs that of all three requests is replayed, which is captured first
        assert counts["overwritten"] > 0
    assert difference < EXACT


@pytest.mark.long
def test_a_tensor_that_is_made_anew_at_each_step_shows_in_graphs_only(
    device_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    assert stock(device_host, models, "new_lengths")[0] < EXACT
    assert stock(device_host, models, "graphs", "new_lengths", **DECODE)[0] > TELLING
