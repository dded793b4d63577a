"""Projections of kept tokens alone as a GPU's engine has them, against the masked transformers model.

On Model Runner V2 with Triton attention in the interpreter, float32 within 1e-5. Views of the weights are taken
whatever they save, which in a tiny model is little.
"""

from typing import Any

import pytest
from engine_cases import Case, EngineRuns
from engine_host import BLOCK, EngineHost, Round
from engine_prompts import EnginePrompt
from exactness import EXACT
from oracle import TinyModel
from partial_cases import EVERY
from text_only_probes import QUESTION, TWO

from vhserve.engine.kv_cache.image_spans import image_blocks

pytestmark = pytest.mark.vllm

ON_DEVICE = ("triton_attention", "views_always")
ASKED = (Round((EnginePrompt(QUESTION, (1,)), EnginePrompt(TWO, (1, 2)), EnginePrompt("<s>yes no")), tokens=3),)
MIXED: dict[str, Any] = {
    "text_only": {0: (2, 3, 4), 1: (0,), 2: EVERY, 4: (1, 2)},
    "other": {"evict": {0: (0,), 3: (0, 1, 2)}, "thinned:2": {4: (0,), 5: (3, 4)}},
    "removed": {1: (1,), 5: (0,)},
    "mean": True,
}
GROUPED: dict[str, Any] = {"granularity": "kv_group", "text_only": {0: (0, 1), 1: (2, 3, 4, 5), 2: (4, 5)}}
GRAPHS: dict[str, Any] = {
    "enforce_eager": False,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 128,
    # The prompts with an image are longer than any graph.
    "compilation_config": {
        "mode": 3,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 4, 32],
    },
}


def device_case(model: str = "mha", **more: Any) -> Case:
    return Case(model, **{"rounds": ASKED, "patches": ON_DEVICE, **more})


CASES = {
    "mixed": device_case(**MIXED),
    "rows": device_case(**MIXED, rounds=(), probe="projection_probes:projected_rows"),
    "chunks": device_case(**MIXED, settings={"max_num_batched_tokens": 2 * BLOCK, "max_num_seqs": 4}),
    "image exit": device_case(text_only={1: (0, 2), 4: EVERY, 5: (0, 1)}, removed={5: (2, 3, 4)}),
    "grouped": device_case("gqa", **GROUPED),
    "compiled": device_case(**MIXED, settings={"enforce_eager": False}),
    "graphs": device_case(
        **MIXED, settings=GRAPHS, patches=(*ON_DEVICE, "graphs"), probe="projection_probes:projected_rows"
    ),
    "rows where little is saved": device_case(
        **MIXED, rounds=(), probe="projection_probes:projected_rows", patches=ON_DEVICE[:1]
    ),
}
SLOW = {"compiled", "chunks", "graphs"}
NAMES = [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in CASES if CASES[name].rounds]


@pytest.fixture(scope="session")
def served(device_host: EngineHost, models: dict[str, TinyModel]) -> EngineRuns:
    return EngineRuns(device_host, models, CASES)


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_says_what_the_masked_model_says(name: str, served: EngineRuns) -> None:
    assert served.worst_difference(name) < EXACT
    assert served(name).facts["backends"] == {"TRITON_ATTN"}
    assert (served(name).facts["compiled"] > 0) == (name in ("compiled", "graphs"))


LAYERS = [*(f"{layer}.self_attn.attn_text_only" for layer in (0, 1, 2, 4)), "5.self_attn.attn_thinned_2"]
PROJECTIONS = {(f"language_model.model.layers.{layer}", kind) for layer in LAYERS for kind in ("qkv_proj", "o_proj")}
"""Of `MIXED`: attention layers whose heads drop tokens of a prompt, and projections around them."""


@pytest.mark.parametrize("name", ["rows", pytest.param("graphs", marks=pytest.mark.long)])
def test_dropped_tokens_meet_the_other_heads_weights_alone(name: str, served: EngineRuns) -> None:
    with_image, text = served(name).probed
    ((first, last),) = image_blocks(with_image["spans"], BLOCK)
    assert last - first == 1  # which thinned heads keep
    tokens, expected = with_image["tokens"], {}
    for layer, kind in PROJECTIONS:
        if layer.endswith("text_only"):
            expected |= {(layer, kind, "by_others"): tokens, (layer, kind, "stock"): tokens - BLOCK}
        else:
            expected[layer, kind, "stock"] = tokens
    assert with_image["prompt"] == expected
    if name == "graphs":  # replayed, without Python
        assert text["prompt"] == with_image["reply"] == text["reply"] == {}
        return
    assert text["prompt"] == {(*one, "stock"): text["tokens"] for one in PROJECTIONS}
    assert with_image["reply"] == text["reply"] == {(*one, "stock"): 1 for one in PROJECTIONS}


def test_where_little_is_saved_all_is_vllms_own(served: EngineRuns) -> None:
    for own in served("rows where little is saved").probed:
        assert own["prompt"] == {(*one, "stock"): own["tokens"] for one in PROJECTIONS}
