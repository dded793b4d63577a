"""Random engines against the masked model; many requests, for leaks.

`RANDOM_ENGINES` in the environment is the number of engines, of which `make test` runs a dozen. With a file named by
`RANDOM_ENGINES_RESULTS` each that is done adds a line, and those that the file has are not run again.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from engine_cases import Heads, pairs, worst_difference
from engine_host import BLOCK, EngineHost, Job
from exactness import EXACT
from oracle import TinyModel
from random_engines import draw_engine

from profiles.pruning_plan import PruningPlan
from vhserve.engine.kv_cache.capacity import groups_of

pytestmark = pytest.mark.vllm

ENGINES = int(os.environ.get("RANDOM_ENGINES", "40"))
SHORT = 12
SEEDS = [pytest.param(seed, marks=pytest.mark.long) if seed >= SHORT else seed for seed in range(ENGINES)]


def done_before(file: Path | None) -> set[int]:
    """Seeds of a file of results."""
    lines = file.read_text().splitlines() if file and file.exists() else []
    return {json.loads(line)["seed"] for line in lines}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_engines_are_exact(seed: int, engine_host: EngineHost, models: dict[str, TinyModel]) -> None:
    """Each engine gives twelve answers."""
    file = Path(name) if (name := os.environ.get("RANDOM_ENGINES_RESULTS")) else None
    if seed in done_before(file):
        pytest.skip(f"{file} has seed {seed}")
    drawn = draw_engine(seed, models)
    outcome = engine_host.run(drawn.job)
    assert outcome.failure is None
    worst = worst_difference(models[drawn.model].oracle, drawn.plan, drawn.job.rounds, outcome.answers)
    print(f"seed {seed}: largest difference {worst:.1e}")
    if file:
        settings = drawn.job.settings
        row = {"seed": seed, "difference": worst, "preemptions": outcome.preemptions, "model": drawn.model, **settings}
        with file.open("a") as results:
            results.write(json.dumps(row) + "\n")
    assert worst < EXACT


MANY: dict[str, dict[str, Heads]] = {
    "text_only": {"text_only": dict.fromkeys(range(6), (1, 2, 4))},
    "mixed": {
        "evict": {0: (1,), 1: (0, 2), 2: (0, 1, 2), 3: (1, 3)},
        "evict:2": {1: (4,), 4: (0, 3)},
        "thinned:2": {0: (3, 4), 2: (3, 4), 5: (1,)},
        "text_only": {3: (4,), 4: (1, 2), 5: (2,)},
        "removed": {3: (0,), 4: (4,), 5: (0, 4)},
    },
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("requests", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_requests_leave_nothing_behind(
    requests: int, name: str, engine_host: EngineHost, models: dict[str, TinyModel]
) -> None:
    model = models["mha"]
    heads: dict[str, Any] = {treatment: pairs(own) for treatment, own in MANY[name].items()}
    plan = PruningPlan.manual(model.ref, model.geometry, **heads)
    # A request of the greatest length and a bit.
    blocks = 11 * sum(groups_of(plan, BLOCK).of.values()) + 3
    settings = {"num_gpu_blocks_override": blocks, "max_model_len": 11 * BLOCK, "max_num_batched_tokens": 100}
    job = Job(
        str(model.path),
        plan.model_dump(mode="json"),
        (),
        settings,
        probe=f"text_only_probes:many_requests_{requests}",
        admission="stock",
    )
    outcome = engine_host.run(job)
    assert outcome.failure is None
    probed = outcome.probed
    assert probed["after"] == probed["before"]
    assert probed["after"]["free"] == probed["after"]["blocks"] - 1
    assert probed["reset"]
    assert probed["aborted"] > 0
    assert probed["preempted"] > 0
    early, late = probed["memory"]
    if requests >= 2000:
        assert late < 1.02 * early
