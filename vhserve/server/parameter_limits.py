"""How large a request's parameters may be: everything in its body that is not a prompt.

Owns the rule, over any field, so that a field which vLLM adds is limited, too: bytes of each parameter as JSON, entries
of each list and mapping in it, levels of nesting. Pure; does not know what the parameters mean.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

CONTENT: Final = frozenset(
    {
        "content_parts",
        "documents",
        "features",
        "input",
        "instructions",
        "messages",
        "prompt",
        "prompt_embeds",
        "system",
        "token_ids",
        "tokens",
    }
)
"""Fields of a body that hold prompts: limited by `--max-request-bytes` and the model's length. Only lists of whole
prompts are counted.
"""

DEPTH: Final = 64
"""Levels of lists and mappings in a parameter; no schema that a person wrote is near."""


@dataclass(frozen=True)
class ParameterLimits:
    """Limits of every parameter of a request.

    Attributes
    ----------
    max_bytes
        Bytes as JSON.
    max_entries
        Entries of one list or mapping.
    """

    max_bytes: int = 256 << 10
    max_entries: int = 1024


@dataclass(frozen=True)
class Violation:
    """A field by its path (`structured_outputs.choice`), and what is wrong with it, the flag included."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


def violation(body: Any, limits: ParameterLimits) -> Violation | None:
    """The first parameter of a parsed body that is too large, or None."""
    if not isinstance(body, dict):
        return None
    for field, value in body.items():
        if field not in CONTENT:
            found = _too_large(field, value, limits)
        elif field in ("prompt", "input") and isinstance(value, list) and not _is_one_prompt(value):
            found = _too_many(field, value, limits)
        else:
            found = None
        if found:
            return found
    return None


def _is_one_prompt(value: list[Any]) -> bool:
    """Whether a list is one prompt's token ids or messages, not one prompt after the other."""
    return not value or not isinstance(value[0], str | list)


def _too_large(field: str, value: Any, limits: ParameterLimits) -> Violation | None:
    pending = [(field, value, 0)]
    while pending:
        path, part, depth = pending.pop()
        if not isinstance(part, list | dict):
            continue
        if found := _too_many(path, part, limits):
            return found
        if depth == DEPTH:
            return Violation(field, f"nested more than {DEPTH} levels deep")
        inner = part.items() if isinstance(part, dict) else ((None, one) for one in part)
        pending.extend((path if key is None else f"{path}.{key}", one, depth + 1) for key, one in inner)
    size = len(json.dumps(value))
    if size <= limits.max_bytes:
        return None
    path = field
    while isinstance(value, dict):
        large = next(((key, one) for key, one in value.items() if len(json.dumps(one)) > limits.max_bytes), None)
        if large is None:
            break
        path, value = f"{path}.{large[0]}", large[1]
    problem = f"{size:,} bytes as JSON; at most {limits.max_bytes:,} are taken (--max-parameter-bytes)"
    return Violation(path[:200], problem)


def _too_many(path: str, value: list[Any] | dict[str, Any], limits: ParameterLimits) -> Violation | None:
    if len(value) <= limits.max_entries:
        return None
    problem = f"{len(value):,} entries; at most {limits.max_entries:,} are taken (--max-parameter-entries)"
    return Violation(path[:200], problem)
