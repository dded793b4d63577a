"""How large a request's parameters may be: the rule alone, on random bodies."""

import json
import random
from typing import Any

import pytest

from vhserve.server.parameter_limits import DEPTH, ParameterLimits, violation

LIMITS = ParameterLimits(max_bytes=2000, max_entries=20)


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = {"items": value}
    return value


@pytest.mark.parametrize(
    ("body", "field", "flag"),
    [
        ({"structured_outputs": {"choice": ["a"] * 21}}, "structured_outputs.choice", "--max-parameter-entries"),
        ({"structured_outputs": {"choice": ["a" * 2000]}}, "structured_outputs.choice", "--max-parameter-bytes"),
        ({"structured_outputs": {"regex": "a" * 2000}}, "structured_outputs.regex", "--max-parameter-bytes"),
        ({"structured_outputs": {"grammar": "a" * 2000}}, "structured_outputs.grammar", "--max-parameter-bytes"),
        (
            {"response_format": {"json_schema": {"schema": {"properties": {str(one): {} for one in range(21)}}}}},
            "response_format.json_schema.schema.properties",
            "--max-parameter-entries",
        ),
        ({"tools": [{}] * 21}, "tools", "--max-parameter-entries"),
        ({"tools": [{"function": {"parameters": {"enum": ["a"] * 21}}}]}, "tools.function.parameters.enum", "entries"),
        ({"stop": ["a"] * 21}, "stop", "--max-parameter-entries"),
        ({"stop_token_ids": list(range(21))}, "stop_token_ids", "--max-parameter-entries"),
        ({"bad_words": ["a"] * 21}, "bad_words", "--max-parameter-entries"),
        ({"allowed_token_ids": list(range(21))}, "allowed_token_ids", "--max-parameter-entries"),
        ({"logit_bias": {str(one): 1 for one in range(21)}}, "logit_bias", "--max-parameter-entries"),
        ({"sampling_params": {"stop": ["a"] * 21}}, "sampling_params.stop", "--max-parameter-entries"),
        ({"a field of next year": ["a"] * 21}, "a field of next year", "--max-parameter-entries"),
        ({"prompt": ["a"] * 21}, "prompt", "--max-parameter-entries"),
        ({"prompt": [[1]] * 21}, "prompt", "--max-parameter-entries"),
        ({"response_format": nested(DEPTH + 1)}, "response_format", "levels"),
    ],
)
def test_each_kind_is_refused_by_its_name(body: dict[str, Any], field: str, flag: str) -> None:
    found = violation({"model": "m", "messages": [], **body}, LIMITS)
    assert found is not None
    assert found.field == field
    assert flag in found.problem
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "a" * 5000}] * 50},
        {"prompt": "a" * 5000},
        {"prompt": list(range(5000))},
        {"input": [{"role": "user", "content": "a" * 5000}] * 50},
        {"response_format": nested(DEPTH)},
        {"stop": ["a"] * 20},
        [],
        None,
        "text",
    ],
)
def test_prompts_are_not_parameters(body: Any) -> None:
    assert violation(body, LIMITS) is None


@pytest.mark.parametrize("seed", range(20))
def test_what_passes_is_within_the_limits(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)

    def value(depth: int) -> Any:
        kind = rng.choice(["text", "list", "mapping"] if depth < 4 else ["text"])
        if kind == "text":
            return "x" * rng.choice([0, 3, 600])
        many = rng.choice([0, 1, 3, 20, 21])
        return (
            [value(depth + 1) for _ in range(many)]
            if kind == "list"
            else {f"k{one}": value(depth + 1) for one in range(many)}
        )

    def longest(part: Any) -> int:
        if not isinstance(part, list | dict):
            return 0
        inner = part.values() if isinstance(part, dict) else part
        return max([len(part), *map(longest, inner)])

    for _ in range(20):
        body = {"stop": value(0), "tools": value(0)}
        fits = all(len(json.dumps(one)) <= 2000 and longest(one) <= 20 for one in body.values())
        assert (violation(body, LIMITS) is None) == fits
