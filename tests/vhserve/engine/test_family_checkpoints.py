"""The tiny checkpoints of every family: stock vLLM reads them, and says what transformers says.

Float32; the largest difference in log-probability, over the 20 likeliest tokens of each step, stays below 1e-5.
"""

from pathlib import Path

import pytest
from engine_host import EngineHost, Job, Round
from exactness import EXACT
from oracle import Oracle
from tiny_families import FAMILIES

pytestmark = [pytest.mark.vllm, pytest.mark.long]


@pytest.mark.parametrize("name", FAMILIES)
def test_stock_vllm_says_what_transformers_says(name: str, engine_host: EngineHost, tmp_path: Path) -> None:
    family = FAMILIES[name]
    path, prompts = family.make(tmp_path / name), family.prompts
    outcome = engine_host.run(Job(str(path), None, (Round(prompts),), {"max_model_len": 1024}))
    assert outcome.failure is None, outcome.failure[1]
    oracle = Oracle(path)
    assert type(oracle.model).__name__ == family.architecture
    found = [
        oracle.difference(prompt, answer, None) for prompt, answer in zip(prompts, outcome.answers[0], strict=True)
    ]
    print(f"{name}: largest difference {max(found):.1e}")
    assert max(found) < EXACT
