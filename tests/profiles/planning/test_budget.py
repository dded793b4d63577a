"""How many heads a budget is, as a number and as a percentage."""

from typing import Any

import numpy as np
import pytest
from documents import profile_of

from profiles.errors import WrongValue
from profiles.planning.budget import heads_of


@pytest.mark.parametrize(
    ("text", "kv_heads", "granularity", "heads"),
    [
        ("0", 4, "query_head", 0),
        ("5", 4, "query_head", 5),
        ("50%", 4, "query_head", 2),
        ("100%", 4, "query_head", 4),
        ("74.9%", 4, "query_head", 2),
        ("75%", 2, "kv_group", 2),
        ("0%", 1, "kv_group", 0),
        ("3", 1, "kv_group", 3),
    ],
)
def test_budgets(text: str, kv_heads: int, granularity: Any, heads: int) -> None:
    geometry = profile_of(np.zeros((3, 4)), kv_heads).geometry
    assert heads_of(text, "remove", geometry, "late", granularity) == heads


@pytest.mark.parametrize(
    ("text", "kv_heads", "granularity", "words"),
    [
        ("0.1%", 4, "query_head", "0.1% of 4 heads, less than 1 head"),
        ("75%", 1, "kv_group", "less than 4 heads, which are treated together"),
        ("200%", 4, "query_head", "a percentage up to 100%"),
    ],
)
def test_percentages_of_no_head_and_of_too_many(text: str, kv_heads: int, granularity: Any, words: str) -> None:
    with pytest.raises(WrongValue, match=words):
        heads_of(text, "remove", profile_of(np.zeros((3, 4)), kv_heads).geometry, "late", granularity)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "101%", "-5%", "1e3", "%", "\u0661", "9" * 30, "5 %", "nan%"])
def test_budgets_that_mean_nothing(text: str) -> None:
    with pytest.raises(WrongValue, match="--text-only"):
        heads_of(text, "text-only", profile_of(np.zeros((3, 4))).geometry, "late", "query_head")
