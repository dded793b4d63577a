"""From which layer on a plan keeps no image: where it is asked for, and where it follows."""

import numpy as np
import pytest
from documents import profile_of
from planned import plan_for

from profiles.errors import BudgetTooLarge, ProtectedHeadTreated, WrongValue
from profiles.planning.image_exit import exit_layer, prefill_saved


def test_every_head_behind_the_exit_is_text_only_or_removed() -> None:
    profile = profile_of(np.arange(16.0)[::-1].reshape(4, 4))
    plan = plan_for(profile, remove=1, text_only=3, exit_layer=2)
    assert plan.heads("removed") == [(3, 3)]
    late = [(layer, head) for layer in (2, 3) for head in range(4)]
    assert plan.heads("text_only") == sorted([(1, 1), (1, 2), (1, 3), *(head for head in late if head != (3, 3))])
    assert (plan.selection.exit_layer, plan.selection.text_only, exit_layer(plan)) == (2, 10, 2)
    assert prefill_saved(plan, 0.5) == 0.25
    assert plan_for(profile, exit_layer=0).heads("text_only") == [divmod(head, 4) for head in range(16)]


def test_where_no_exit_is() -> None:
    profile = profile_of(np.arange(12.0)[::-1].reshape(3, 4))
    assert exit_layer(plan_for(profile, text_only=3)) is None
    assert exit_layer(plan_for(profile, remove=4)) is None  # an engine without text-only heads knows no image blocks
    assert exit_layer(plan_for(profile, remove=4, text_only=4)) == 1
    assert exit_layer(plan_for(profile, remove=4, evict=4)) is None
    assert prefill_saved(plan_for(profile, text_only=3), 1.0) == 0


def test_an_exit_that_cannot_be() -> None:
    profile = profile_of(np.arange(12.0).reshape(3, 4))
    for options, kind, saying in (
        ({"exit_layer": 3}, WrongValue, "the model has 3 layers"),
        ({"exit_layer": 1, "stage": "late"}, WrongValue, "give --stage all"),
        ({"exit_layer": 1, "protect_top": 10}, ProtectedHeadTreated, "layer 2 head 3"),
        ({"exit_layer": 1, "text_only": 5}, BudgetTooLarge, "4"),
    ):
        with pytest.raises(kind, match=saying):
            plan_for(profile, **options)


def test_a_protected_kv_group_behind_the_exit_is_named() -> None:
    profile = profile_of(np.arange(12.0).reshape(3, 4), kv_heads=2)
    with pytest.raises(ProtectedHeadTreated, match=r"layer 2 group 1 \(heads 2-3\), which --protect-top 10 protects"):
        plan_for(profile, exit_layer=1, protect_top=10)
