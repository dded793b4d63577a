"""Units: the heads that are chosen together, so that every plan made of them can be laid out.

- multi-head attention: a unit is one head;
- grouped-query attention, granularity `kv_group`: the query heads of one KV head;
- grouped-query attention, granularity `query_head`: in one layer, the i-th lowest head of every KV group, so that every
  KV head keeps equally many query heads. This frees projections and attention, but KV only with the whole layer.

Does not know budgets, stages or protection.
"""

from dataclasses import dataclass

from profiles.geometry import ModelGeometry
from profiles.names import Granularity
from profiles.planning.rankings import Table


@dataclass(frozen=True)
class Unit:
    """Heads of one layer that are treated together.

    Attributes
    ----------
    heads
        Ascending query heads.
    """

    layer: int
    heads: tuple[int, ...]


def unit_size(geometry: ModelGeometry, granularity: Granularity) -> int:
    """Query heads in a unit."""
    if geometry.group_size == 1:
        return 1
    return geometry.group_size if granularity == "kv_group" else geometry.kv_heads


def units(geometry: ModelGeometry, worth: Table, granularity: Granularity) -> list[Unit]:
    """All units of a model; every head is in exactly one.

    Parameters
    ----------
    worth
        Of every head, ``(layers, query heads)``; higher means keep. Decides which heads of different KV groups go
        together.
    """
    found = []
    for layer in range(geometry.layers):
        groups = [list(geometry.group(kv_head)) for kv_head in range(geometry.kv_heads)]
        if granularity == "query_head" and geometry.group_size > 1:
            ranked = [sorted(group, key=lambda head: (worth[layer, head], head)) for group in groups]
            groups = [sorted(heads) for heads in zip(*ranked, strict=True)]
        found += [Unit(layer, tuple(heads)) for heads in groups]
    return found
