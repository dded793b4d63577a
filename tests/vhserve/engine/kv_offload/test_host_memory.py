"""Copies between a KV cache and chunks in the host's memory, byte for byte, against loops."""

import pytest
import torch

pytestmark = pytest.mark.vllm

BLOCKS, CHUNKS = 7, 9
PAGES = ((12, 12), (20, 16))
"""Bytes of a page of each tensor, with its padding and without."""


def caches(seed: int = 0) -> list[torch.Tensor]:
    """Two tensors of a KV cache: one by itself, one whose pages lie apart."""
    generator = torch.Generator().manual_seed(seed)
    whole = [torch.randint(-128, 128, (BLOCKS, 2 * page), generator=generator, dtype=torch.int8) for page, _ in PAGES]
    return [whole[0][:, :12].contiguous(), whole[1].as_strided((BLOCKS, 20), (40, 1), 5)]


def test_what_was_stored_is_loaded_into_other_blocks_and_nothing_else_is_touched() -> None:
    from vllm.v1.kv_offload.base import (
        CanonicalKVCacheRef,
        CanonicalKVCaches,
        CanonicalKVCacheTensor,
        GPULoadStoreSpec,
    )
    from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

    from vhserve.engine.kv_offload.host_memory import HostWorker

    tensors = caches()
    refs = [CanonicalKVCacheRef(index, bare) for index, (_, bare) in enumerate(PAGES)]
    # Three groups: one in both tensors, one that has nothing to copy, one in the second.
    worker = HostWorker(
        CanonicalKVCaches(
            [CanonicalKVCacheTensor(one, page) for one, (page, _) in zip(tensors, PAGES, strict=True)],
            [refs, [refs[0]], [refs[1]]],
        ),
        CHUNKS,
    )
    before = [one.clone() for one in tensors]
    assert worker.submit_store(1, GPULoadStoreSpec([3, 1, 5], (2, 0, 1), (0, 0, 0)), CPULoadStoreSpec([8, 0, 4]))
    for one in tensors:
        one.fill_(77)
    assert worker.submit_load(2, CPULoadStoreSpec([0, 4]), GPULoadStoreSpec([6, 2], (1, 0, 1), (0, 0, 0)))

    expected = [torch.full_like(one, 77) for one in before]
    for index, (_, bare) in enumerate(PAGES):  # chunk 0 has block 1 of the first group
        expected[index][6, :bare] = before[index][1, :bare]
    expected[1][2, :16] = before[1][5, :16]  # chunk 4 has block 5 of the third
    assert all(torch.equal(one, wanted) for one, wanted in zip(tensors, expected, strict=True))

    done = worker.get_finished()
    assert [(one.job_id, one.success, one.transfer_size) for one in done] == [
        (1, True, 2 * (12 + 16) + 16),
        (2, True, 12 + 16 + 16),
    ]
    assert worker.get_finished() == []
    with pytest.raises(ValueError, match="2 blocks for 1 chunks"):
        worker.submit_load(3, CPULoadStoreSpec([0]), GPULoadStoreSpec([6, 2], (2, 0, 0), (0, 0, 0)))
