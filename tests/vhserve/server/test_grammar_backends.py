"""With each of vLLM's backends for structured outputs, what takes too long is refused, in its time and in one line.

In the process that a server tries grammars out in. With a server, and the default backend: test_grammar_check.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grammar_answers
import pytest
from live_server import slow_choices
from oracle import TinyModel

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

SECONDS = 5.0
BACKENDS = ("auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer")
QUICK = {"choice": ["red", "green"]}
SLOW = (
    {"choice": slow_choices(1)},
    {"regex": "((red|re|r|e|d)*){0,50}x{0,3000}"},
    {"regex": "(.*a.{20})*"},
    {"json": {"type": "object", "properties": {f"k{one}": {"type": "integer"} for one in range(200)}}},
)
"""Each takes at least one of the backends more than a minute, or is refused by another at once."""

NOT_HERE = {"lm-format-enforcer": "vllm is not installed"}
"""Backends that do not work on every machine, with what they say there: builds for CPUs have another name."""


@pytest.fixture(scope="module")
def model(models: dict[str, TinyModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer that says how bytes become text, without which guidance takes none."""
    folder = shutil.copytree(models["gqa"].path, tmp_path_factory.mktemp("bytes") / "model")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["decoder"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    path.write_text(json.dumps(tokenizer))
    return folder


def answers(model: Path, environment: dict[str, str], constraints: list[Any], token_seconds: float) -> dict[str, Any]:
    given = json.dumps([str(model), BACKENDS, constraints, SECONDS, token_seconds])  # too long for an argument
    done = subprocess.run(
        [sys.executable, grammar_answers.__file__],
        env=environment, input=given, stdout=subprocess.PIPE, text=True, timeout=1000, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert list(found) == list(BACKENDS)
    return found


@pytest.mark.long
def test_every_backend_answers_in_its_time(model: Path, vllm_environment: dict[str, str]) -> None:
    found = answers(model, vllm_environment, [QUICK, *SLOW, QUICK], 0.5)
    for backend, said in found.items():
        problems = [problem for problem, _ in said]
        assert max(seconds for _, seconds in said) < 4 * SECONDS, (backend, said)
        assert all(problem is None or "\n" not in problem for problem in problems)
        assert problems[0] == problems[-1]
        if problems[0] is not None:
            assert NOT_HERE[backend] in problems[0]
    for number in range(1, 1 + len(SLOW)):
        assert any(said[number][0] is not None for said in found.values()), SLOW[number - 1]
    # Which of them takes too long is the machine's.
    assert any("--max-grammar-seconds" in (problem or "") for said in found.values() for problem, _ in said)


def test_every_backend_s_tokens_are_timed(model: Path, vllm_environment: dict[str, str]) -> None:
    for backend, said in answers(model, vllm_environment, [QUICK], 1e-9).items():
        ((problem, _),) = said
        assert "token 1 of it takes" in problem or NOT_HERE.get(backend, "no such thing") in problem, (backend, problem)
