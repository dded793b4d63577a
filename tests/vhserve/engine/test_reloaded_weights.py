"""Weights that are replaced while an engine runs, as in reinforcement learning: cut, packed and folded in as before.

Float32; after the reload the engine says what the masked model of the other checkpoint says, to 1e-5.
"""

from pathlib import Path

import pytest
from engine_cases import Case, worst_difference
from engine_host import EngineHost
from exactness import EXACT
from oracle import TinyModel
from partial_cases import EVERY
from reload_probes import ASKED
from tiny_models import make_tiny_llava

from profiles.geometry import ModelGeometry

pytestmark = pytest.mark.vllm

SIZES = {"head_size": 32, "hidden_size": 120}
PLAN = {
    # Smaller projections, ones in two parts, a layer without attention, and means in place of removed heads.
    "removed": {0: (1,), 2: (0, 4), 5: EVERY},
    "text_only": {1: (0, 1, 2, 3), 3: (0,)},
    "mean": True,
}
CASES = {
    "sliced": Case("mha", rounds=(ASKED,), probe="reload_probes:of_another_checkpoint", **PLAN),
    "gathered": Case("mha", rounds=(ASKED,), probe="reload_probes:of_another_checkpoint", surgery="gather", **PLAN),
}


@pytest.mark.parametrize("name", ["sliced", pytest.param("gathered", marks=pytest.mark.long)])
def test_reloaded_weights_are_those_of_the_plan(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    geometry = ModelGeometry(layers=6, query_heads=5, kv_heads=5, image_tokens=81, **SIZES)
    first, second = (
        TinyModel(make_tiny_llava(tmp_path / folder, layers=6, query_heads=5, seed=seed), geometry)
        for seed, folder in enumerate(("first", "second"))
    )
    case = CASES[name]
    outcome = engine_host.run(case.job(first))
    assert outcome.failure is None, outcome.failure[1]
    assert worst_difference(first.oracle, case.plan(first), case.rounds, outcome.answers) < EXACT
    assert worst_difference(second.oracle, case.plan(second), case.rounds, [outcome.probed]) < EXACT
