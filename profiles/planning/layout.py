"""Which query and KV heads each layer keeps under a plan, in the order in which a server lays them out.

Does not know blocks, groups or lanes of a KV cache: that is the engine's.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Self

from profiles.errors import LayoutRefused
from profiles.names import TreatmentName
from profiles.pruning_plan import PruningPlan
from profiles.treatments import FULL, TREATMENTS, Treatment


@dataclass(frozen=True)
class TreatedHeads:
    """Heads of one layer that share a treatment; both tuples ascending.

    Attributes
    ----------
    queries, kv
        Query heads, and the KV heads that these read. KV head ``i`` serves the ``i``-th run of
        ``len(queries) / len(kv)`` query heads.
    """

    queries: tuple[int, ...] = ()
    kv: tuple[int, ...] = ()


@dataclass(frozen=True)
class LayerLayout:
    """Heads that one layer keeps, by the name of their treatment; a server lays them out in this order.

    Attributes
    ----------
    kept
        Of every treatment under which heads are computed, in the order of the registry, ones without heads included.
    """

    kept: dict[TreatmentName, TreatedHeads]

    @classmethod
    def of(cls, **kept: TreatedHeads) -> Self:
        """A layout of heads by treatment; the other treatments have none."""
        return cls({one.name: kept.get(one.name, TreatedHeads()) for one in TREATMENTS.values() if one.computed})

    @property
    def full(self) -> TreatedHeads:
        """Heads that stay as they are."""
        return self.kept[FULL.name]

    @property
    def queries(self) -> tuple[int, ...]:
        """All query heads that are kept, as they are laid out."""
        return tuple(head for heads in self.kept.values() for head in heads.queries)

    @property
    def kv(self) -> tuple[int, ...]:
        """All KV heads that are kept, as they are laid out."""
        return tuple(head for heads in self.kept.values() for head in heads.kv)


def layer_layouts(plan: PruningPlan) -> tuple[LayerLayout, ...]:
    """Layout of every layer.

    Raises
    ------
    LayoutRefused
        The KV heads that a layer keeps for a treatment don't keep equally many query heads; one KV head has query heads
        of two treatments (full and text-only, say), so that its text would be cached twice; or no head is left in the
        whole model.
    """
    layouts = tuple(_layer_layout(plan, layer) for layer in range(plan.geometry.layers))
    if not any(heads.queries for layout in layouts for heads in layout.kept.values()):
        raise LayoutRefused("the plan removes every head", expected="at least one head kept", fix="remove fewer heads")
    return layouts


def _layer_layout(plan: PruningPlan, layer: int) -> LayerLayout:
    computed = [treatment for treatment in TREATMENTS.values() if treatment.computed]
    kept = {treatment.name: _heads(plan, layer, treatment) for treatment in computed}
    for one, other in combinations(computed, 2):
        both = sorted(set(kept[one.name].kv) & set(kept[other.name].kv))
        if both:
            raise LayoutRefused(
                f"layer {layer}: KV head {both[0]} has {one.label} and {other.label} query heads, which would cache "
                "its text twice",
                expected="one of the two treatments for each KV head",
                fix="make the plan with --granularity kv_group",
            )
    return LayerLayout(kept)


def _heads(plan: PruningPlan, layer: int, treatment: Treatment) -> TreatedHeads:
    """Query heads of a treatment, and the KV heads they read."""
    row, group_size = plan.treatments[layer], plan.geometry.group_size
    heads = tuple(head for head, name in enumerate(row) if name == treatment.name)
    readers: dict[int, int] = {}
    for head in heads:
        readers[head // group_size] = readers.get(head // group_size, 0) + 1
    if len(set(readers.values())) > 1:
        uneven = ", ".join(f"{count} of KV head {kv_head}" for kv_head, count in readers.items())
        raise LayoutRefused(
            f"layer {layer}: keeps {uneven} ({treatment.name} query heads)",
            expected="equally many query heads for every KV head that is kept",
            fix="make the plan with `vhserve plan`, which chooses heads that a layout can hold",
        )
    return TreatedHeads(heads, tuple(readers))
