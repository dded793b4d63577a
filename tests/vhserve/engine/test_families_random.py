"""Random engines of random families against the masked model.

`RANDOM_FAMILY_ENGINES` in the environment is the number of engines, of which `make test` runs one. With a file named by
`RANDOM_FAMILY_ENGINES_RESULTS` each that is done adds a line.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_cases import worst_difference
from engine_host import EngineHost
from exactness import EXACT
from oracle import TinyModel
from random_families import draw_family_engine
from tiny_families import FAMILIES
from transformers import AutoConfig

from profiles.transformers_config import decoder_geometry

pytestmark = pytest.mark.vllm

ENGINES = int(os.environ.get("RANDOM_FAMILY_ENGINES", "10"))
SHORT = 1
SEEDS = [pytest.param(seed, marks=pytest.mark.long) if seed >= SHORT else seed for seed in range(ENGINES)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyModel]:
    """The tiny model of a family, made once."""
    folder, made = tmp_path_factory.mktemp("families"), dict[str, TinyModel]()

    def make(name: str) -> TinyModel:
        if name not in made:
            path = FAMILIES[name].make(folder / name)
            geometry = decoder_geometry(AutoConfig.from_pretrained(path), 64)
            made[name] = TinyModel(path, geometry, FAMILIES[name].architecture)
        return made[name]

    return make


@pytest.mark.parametrize("seed", SEEDS)
def test_random_engines_of_families_are_exact(
    seed: int, tiny: Callable[[str], TinyModel], engine_host: EngineHost
) -> None:
    drawn = draw_family_engine(seed, tiny)
    said = f"seed {seed}: {drawn.family}, {drawn.job.surgery}, {drawn.job.settings}"
    print(said)
    outcome = engine_host.run(drawn.job)
    assert outcome.failure is None, f"{said}: {outcome.failure[1]}"
    worst = worst_difference(drawn.model.oracle, drawn.plan, drawn.job.rounds, outcome.answers)
    print(f"{said}: largest difference {worst:.1e}")
    if name := os.environ.get("RANDOM_FAMILY_ENGINES_RESULTS"):
        row = {"seed": seed, "difference": worst, "family": drawn.family, "surgery": drawn.job.surgery}
        with Path(name).open("a") as results:
            results.write(json.dumps(row) + "\n")
    assert worst < EXACT, said
