"""What a connector's scheduler hears of allocations, where groups keep only part of the blocks."""

from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.vllm


def test_an_allocation_without_anything_to_load_is_heard_of() -> None:
    """vLLM 0.33 notes its blocks, which stores that still run may hold."""
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks

    from vhserve.compat.offloading import pass_over_gaps

    heard: list[Any] = []
    scheduler: Any = SimpleNamespace(
        _maximal_prefix_lookup=None, update_state_after_alloc=lambda *asked: heard.append(asked)
    )
    pass_over_gaps(scheduler, lambda request, group: ())
    request, blocks = SimpleNamespace(request_id="one"), KVCacheBlocks(([], []))
    scheduler.update_state_after_alloc(request, blocks, 0)
    assert heard == [(request, blocks, 0)]
