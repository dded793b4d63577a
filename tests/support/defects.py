"""A document of each kind, what is changed in it, and the error that reading it raises.

Judges only that the error is the user's; does not know which it should be.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import PROFILE_V1, example_plan, example_profile

from profiles import canonical
from profiles.errors import UserError
from profiles.head_profile import HeadProfile
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, load_profile
from profiles.version_1 import HeadProfileV1

Place = tuple[str | int, ...]
OLD = HeadProfileV1.model_validate_json(PROFILE_V1.read_bytes())
DOCUMENTS = {"profile": example_profile(), "profile of version 1": OLD, "plan": example_plan()}
LOADS: dict[str, Callable[[Path], HeadProfile | PruningPlan]] = {
    "profile": load_profile,
    "profile of version 1": load_profile,
    "plan": load_plan,
}


def data_of(kind: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(canonical.to_bytes(DOCUMENTS[kind]))
    return data


def refused(kind: str, text: str | bytes, folder: Path) -> UserError:
    """The error that loading the text raises; fails when it raises none, or one that isn't the user's."""
    path = folder / "document.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        LOADS[kind](path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return caught.value


def places(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Values in a document with their places: of an object all, of an array the last; not the document itself."""
    if place:
        yield place, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from places(child, (*place, key))
    elif isinstance(value, list) and value:
        yield from places(value[-1], (*place, len(value) - 1))


def dotted(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def changed(data: dict[str, Any], place: Place, change: Callable[[Any, Any], None]) -> str:
    """The document's text after `change(container, key)` at a place."""
    document = copy.deepcopy(data)
    container: Any = document
    for part in place[:-1]:
        container = container[part]
    change(container, place[-1])
    return json.dumps(document)


def put(value: Any) -> Callable[[Any, Any], None]:
    return lambda container, key: container.__setitem__(key, value)
