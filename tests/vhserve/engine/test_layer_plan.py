"""Plans of layers against the plan that they are made from."""

import numpy as np

from profiles.geometry import ModelGeometry, ModelRef
from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import Compensation, PruningPlan
from vhserve.engine.kv_cache.lane_assignment import assign_lanes
from vhserve.engine.layer_plan import layer_plans

MODEL = ModelRef(name="tiny", revision="1", architecture="LlavaForConditionalGeneration")
GEOMETRY = ModelGeometry(layers=3, query_heads=4, kv_heads=4, head_size=8, hidden_size=24, image_tokens=81)


def test_each_layer_gets_the_means_of_its_own_heads() -> None:
    removed = [(0, 3), (1, 0), (1, 2)]
    means = np.arange(len(removed) * GEOMETRY.head_size, dtype=np.float32).reshape(len(removed), -1)
    plan = PruningPlan.manual(
        MODEL, GEOMETRY, removed=list(reversed(removed)), compensation=Compensation(method="mean", means=means)
    )
    layers = layer_plans(plan, block_size=32)
    assert [layer.index for layer in layers] == list(range(GEOMETRY.layers))
    assert [layer.layout for layer in layers] == list(layer_layouts(plan))
    assert all(layer.lanes is None for layer in layers)
    given = {
        (layer.index, head): row.tolist()
        for layer in layers
        if layer.compensation is not None
        for head, row in zip(layer.compensation.heads, layer.compensation.means, strict=True)
    }
    assert given == dict(zip(plan.heads("removed"), means.tolist(), strict=True))


def test_with_text_only_heads_every_layer_has_its_lanes() -> None:
    plan = PruningPlan.manual(MODEL, GEOMETRY, text_only=[(1, head) for head in range(GEOMETRY.query_heads)])
    lanes = assign_lanes(layer_layouts(plan), GEOMETRY.image_tokens, 16)
    assert lanes is not None
    layers = layer_plans(plan, block_size=16)
    assert [layer.lanes for layer in layers] == list(lanes)
    assert [layer.compensation for layer in layers] == [None] * GEOMETRY.layers
