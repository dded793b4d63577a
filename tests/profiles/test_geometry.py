"""Stages cover the layers, KV groups cover the heads."""

import pytest
from documents import brief, geometries
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from profiles.geometry import ModelGeometry, stage_layers, stage_of
from profiles.names import STAGES


@given(layers=st.integers(1, 200))
@brief
def test_stages_cut_the_layers_into_thirds(layers: int) -> None:
    parts = [stage_layers(stage, layers) for stage in STAGES]
    assert [layer for part in parts for layer in part] == list(range(layers)) == list(stage_layers("all", layers))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for stage, part in zip(STAGES, parts, strict=True):
        assert all(stage_of(layer, layers) == stage for layer in part)


def test_stages_of_a_7b_model() -> None:
    assert [stage_layers(stage, 32) for stage in STAGES] == [range(10), range(10, 21), range(21, 32)]
    for layer in (-1, 32):
        with pytest.raises(IndexError):
            stage_of(layer, 32)


@given(geometry=geometries())
@brief
def test_groups_cover_the_heads(geometry: ModelGeometry) -> None:
    groups = [geometry.group(kv_head) for kv_head in range(geometry.kv_heads)]
    assert [head for group in groups for head in group] == list(range(geometry.query_heads))
    assert all(len(group) == geometry.group_size for group in groups)
    assert geometry.heads == geometry.layers * geometry.query_heads


def test_kv_heads_divide_query_heads() -> None:
    with pytest.raises(ValidationError, match="a divisor of query_heads"):
        ModelGeometry(layers=2, query_heads=6, kv_heads=4, head_size=3, hidden_size=5, image_tokens=0)
