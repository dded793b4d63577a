"""What the demo refuses before it computes anything: numbers of heads that no plan can treat, memory that is not there.

Knows the model's sizes, not how heads are chosen: what depends on their ranking is refused where plans are made.
"""

import os
from math import ceil
from typing import Final

from profiles.errors import ProtectedHeadTreated, WrongValue
from profiles.geometry import ModelGeometry, stage_layers
from profiles.planning.budget import check_budget, check_multiple
from vhserve.demo.options import DemoOptions

_GIB: Final = 1 << 30


def check_options(options: DemoOptions, geometry: ModelGeometry) -> None:
    """Refuse what `vhserve plan` or a server would refuse later, whatever calibration finds.

    Raises
    ------
    BudgetTooLarge, ProtectedHeadTreated, WrongValue
    """
    for flag, heads in (("remove", options.remove), ("text-only", options.text_only)):
        check_multiple(heads, flag, geometry, geometry.granularity)
    budget = options.remove + options.text_only
    if not budget:
        raise WrongValue(
            "--remove and --text-only are both 0, which leaves nothing to compare",
            expected="heads to remove, or to show text only",
            fix="give --remove 8, or --text-only 24",
        )
    protected = ceil(round(options.protect_top * geometry.heads / 100, 9))
    stage = len(stage_layers(options.stage, geometry.layers)) * geometry.query_heads
    inside = max(
        0, protected - (geometry.heads - stage)
    )  # of the protected heads, at least; the others may be elsewhere
    if options.select == "top":
        _check_top(options, protected)
        inside = 0
    check_budget(budget, options.stage, stage, stage - inside, options.protect_top)
    if options.remove >= geometry.heads:
        raise WrongValue(
            f"--remove is {options.remove}, all heads of the model", expected="fewer", fix="give --remove 8"
        )
    _check_memory(options.kv_cache_gib)


def _check_top(options: DemoOptions, protected: int) -> None:
    if options.stage == "all" and options.remove and protected:
        raise ProtectedHeadTreated(
            f"--select top takes the heads that --protect-top {options.protect_top:g} protects",
            expected="no protection with --select top, a control that means the very top",
            fix="give --protect-top 0",
        )


def _check_memory(gib: int) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if gib * _GIB > there:
        raise WrongValue(
            f"--kv-cache-gib is {gib}, but this machine has {there / _GIB:.1f} GiB of memory",
            expected="a KV cache that fits beside the model",
            fix="give --kv-cache-gib 1",
        )
