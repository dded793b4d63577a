"""A plan of every treatment for each tiny family. Asks no engine, and judges nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from oracle import TinyModel
from tiny_families import FAMILIES
from tiny_models import make_tiny_llava_next, make_tiny_vip_llava
from transformers import AutoConfig

from profiles.pruning_plan import Compensation, PruningPlan
from profiles.transformers_config import decoder_geometry

PAPER: Final[dict[str, Callable[..., Path]]] = {"llava_next": make_tiny_llava_next, "vip_llava": make_tiny_vip_llava}
"""LLaVA's families beside LLaVA-1.5, which are not among `FAMILIES`."""

TREATMENTS = ("full", "text_only", "removed", "evict", "thinned:2")


def mixed_plan(model: TinyModel, *, partial: bool = True) -> PruningPlan:
    """Treatments in turn for the KV groups of a model, so that layers differ; the last layer keeps no head.

    Without `partial` ones, only the removed heads are.
    """
    geometry, heads = model.geometry, {name: [] for name in TREATMENTS}
    for layer in range(geometry.layers):
        for group in range(geometry.kv_heads):
            name = TREATMENTS[(layer + 2 * group) % len(TREATMENTS)] if layer < geometry.layers - 1 else "removed"
            first = group * geometry.group_size
            heads[name] += [(layer, head) for head in range(first, first + geometry.group_size)]
    heads = {name: own for name, own in heads.items() if name == "removed" or (partial and name != "full")}
    means = np.random.default_rng(5).normal(size=(len(heads["removed"]), geometry.head_size)).astype(np.float32)
    compensation = Compensation(method="mean", means=means)
    return PruningPlan.manual(model.ref, geometry, **heads, granularity="kv_group", compensation=compensation)


def tiny(name: str, folder: Path) -> TinyModel:
    """A checkpoint of a family of `FAMILIES` or `PAPER`, in a folder of its name."""
    path = folder / name
    if name in PAPER:
        PAPER[name](path, layers=4, query_heads=6, kv_heads=3)
    else:
        FAMILIES[name].make(path)
    config = AutoConfig.from_pretrained(path)
    return TinyModel(path, decoder_geometry(config, 64), config.architectures[0])
