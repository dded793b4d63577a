"""A plan or profile fits its own model and no other, and says what differs."""

import pytest
from documents import GEOMETRY, MODEL, example_plan, example_profile

from profiles.errors import ModelMismatch
from profiles.head_profile import HeadProfile
from profiles.planning.fit import check_fit
from profiles.pruning_plan import PruningPlan

DOCUMENTS = {"profile": example_profile(), "plan": example_plan()}
OTHERS = {
    "layers": 4,
    "query_heads": 8,
    "kv_heads": 4,
    "head_size": 2,
    "hidden_size": 6,
    "architecture": "LlavaNextForConditionalGeneration",
    "revision": "f" * 40,
}


@pytest.mark.parametrize(("kind", "document"), DOCUMENTS.items(), ids=DOCUMENTS)
def test_its_own_model_fits_under_any_name(kind: str, document: HeadProfile | PruningPlan) -> None:
    renamed = MODEL.model_copy(update={"name": "/models/llava"})
    check_fit(document, renamed, GEOMETRY.model_copy(update={"image_tokens": 99}))


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize(("kind", "document"), DOCUMENTS.items(), ids=DOCUMENTS)
def test_anything_else_is_named(kind: str, document: HeadProfile | PruningPlan, what: str) -> None:
    update = {what: OTHERS[what], "name": "another/model"}
    model, geometry = MODEL.model_copy(update=update), GEOMETRY.model_copy(update=update)
    ours = getattr(MODEL if hasattr(MODEL, what) else GEOMETRY, what)
    with pytest.raises(ModelMismatch) as caught:
        check_fit(document, model, geometry)
    message = str(caught.value)
    assert f"this {kind} is for {MODEL.name} with {what} {ours}" in message
    assert f"another/model has {what} {OTHERS[what]}" in message
