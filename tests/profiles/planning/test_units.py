"""What is treated together in a grouped-query model: KV groups, or one query head of each of a layer's groups."""

import numpy as np
from documents import profile_of
from planned import plan_for

from profiles.planning.layout import TreatedHeads, layer_layouts
from profiles.planning.units import units


def test_units_of_a_grouped_query_model() -> None:
    table = np.array([[0.5, 0.1, 0.3, 0.0, 0.2, 0.6], [0.0] * 6])
    profile = profile_of(table, kv_heads=2)
    by_group = [(unit.layer, unit.heads) for unit in units(profile.geometry, table, "kv_group")]
    assert by_group == [(0, (0, 1, 2)), (0, (3, 4, 5)), (1, (0, 1, 2)), (1, (3, 4, 5))]
    by_head = units(profile.geometry, table, "query_head")
    assert [unit.heads for unit in by_head[:3]] == [(1, 3), (2, 4), (0, 5)]
    assert [unit.heads for unit in by_head[3:]] == [(0, 3), (1, 4), (2, 5)]


def test_single_query_heads_keep_all_kv_until_the_layer_goes() -> None:
    profile = profile_of(np.array([[0.5, 0.1, 0.3, 0.0, 0.2, 0.6], [9.0] * 6]), kv_heads=2)
    for remove, full, kv in ((2, (0, 2, 4, 5), (0, 1)), (4, (0, 5), (0, 1)), (6, (), ())):
        layout = layer_layouts(plan_for(profile, remove=remove))[0]
        assert layout.full == TreatedHeads(full, kv)
