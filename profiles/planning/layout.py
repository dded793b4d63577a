"""Which query and KV heads each layer keeps under a plan, in the order in which a server lays them out.

Does not know blocks, groups or lanes of a KV cache: that is the engine's.
"""

from dataclasses import dataclass

from profiles.errors import LayoutRefused
from profiles.names import Treatment
from profiles.pruning_plan import PruningPlan


@dataclass(frozen=True)
class LayerLayout:
    """Heads one layer keeps, each tuple ascending; a server lays them out ``[full | text_only]``.

    Attributes
    ----------
    full, text_only
        Query heads that attend to everything, and to text only.
    kv_full, kv_text
        The KV heads these read. Entry ``i`` serves the ``i``-th run of ``len(full) / len(kv_full)`` query heads.
    """

    full: tuple[int, ...]
    text_only: tuple[int, ...]
    kv_full: tuple[int, ...]
    kv_text: tuple[int, ...]


def layer_layouts(plan: PruningPlan) -> tuple[LayerLayout, ...]:
    """Layout of every layer.

    Raises
    ------
    LayoutRefused
        The KV heads that a layer keeps for a treatment don't keep equally many query heads; one KV head has full and
        text-only query heads, so that its text would be cached twice; or no head is left in the whole model.
    """
    layouts = tuple(_layer_layout(plan, layer) for layer in range(plan.geometry.layers))
    if not any(layout.full or layout.text_only for layout in layouts):
        raise LayoutRefused("the plan removes every head", expected="at least one head kept", fix="remove fewer heads")
    return layouts


def _layer_layout(plan: PruningPlan, layer: int) -> LayerLayout:
    full, kv_full = _kept(plan, layer, "full")
    text_only, kv_text = _kept(plan, layer, "text_only")
    both = sorted(set(kv_full) & set(kv_text))
    if both:
        raise LayoutRefused(
            f"layer {layer}: KV head {both[0]} has full and text-only query heads, which would cache its text twice",
            expected="one of the two treatments for each KV head",
            fix="make the plan with --granularity kv_group",
        )
    return LayerLayout(full, text_only, kv_full, kv_text)


def _kept(plan: PruningPlan, layer: int, treatment: Treatment) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Query heads of a treatment, and the KV heads they read."""
    row, group_size = plan.treatments[layer], plan.geometry.group_size
    heads = tuple(head for head, given in enumerate(row) if given == treatment)
    readers: dict[int, int] = {}
    for head in heads:
        readers[head // group_size] = readers.get(head // group_size, 0) + 1
    if len(set(readers.values())) > 1:
        uneven = ", ".join(f"{count} of KV head {kv_head}" for kv_head, count in readers.items())
        raise LayoutRefused(
            f"layer {layer}: keeps {uneven} ({treatment} query heads)",
            expected="equally many query heads for every KV head that is kept",
            fix="make the plan with `vhserve plan`, which chooses heads that a layout can hold",
        )
    return heads, tuple(readers)
