"""Where offloaded blocks go: the host's memory, by vLLM's own worker on GPUs and by copies on CPUs.

Owns the copies of engines whose KV cache is in the host's memory too, which vLLM's worker does not serve. Named in
`kv_connector_extra_config`. Does not know plans, nor which blocks are worth keeping (vLLM's manager of chunks).
"""

import time
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.platforms import current_platform
from vllm.v1.kv_offload.base import (
    BlockIDsLoadStoreSpec,
    CanonicalKVCaches,
    GPULoadStoreSpec,
    LoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec


class HostOffloadingSpec(CPUOffloadingSpec):
    """vLLM's spec, which on a CPU copies in the host's memory."""

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        if not current_platform.is_cpu():
            return super().get_worker(kv_caches)
        return HostWorker(kv_caches, self.num_chunks)


class HostWorker(OffloadingWorker):
    """Copies between blocks of a KV cache and chunks, both in the host's memory; a job is done when it is submitted.

    Parameters
    ----------
    kv_caches
        The KV cache as bytes: tensors of shape (blocks, bytes of a page), and for each group its layers' pages.
    chunks
        How many blocks are kept, of all groups together.
    """

    def __init__(self, kv_caches: CanonicalKVCaches, chunks: int) -> None:
        self._blocks = [one.tensor for one in kv_caches.tensors]
        self._chunks = [torch.empty(chunks, one.shape[1], dtype=torch.int8) for one in self._blocks]
        self._groups = kv_caches.group_data_refs
        self._done: list[TransferResult] = []

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec) -> bool:
        return self._copy(job_id, src_spec, dst_spec, self._blocks, self._chunks, stores=True)

    def submit_load(
        self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec, expedited: bool = False
    ) -> bool:  # vLLM 0.33 says which are urgent
        return self._copy(job_id, dst_spec, src_spec, self._chunks, self._blocks, stores=False)

    def get_finished(self) -> list[TransferResult]:
        done, self._done = self._done, []
        return done

    def wait(self, job_ids: set[int]) -> None:
        """Return at once: jobs are done when they are submitted."""

    def _copy(
        self,
        job_id: int,
        of_cache: GPULoadStoreSpec,
        of_chunks: LoadStoreSpec,
        sources: list[torch.Tensor],
        targets: list[torch.Tensor],
        *,
        stores: bool,
    ) -> bool:
        if not isinstance(of_chunks, BlockIDsLoadStoreSpec):
            raise TypeError(f"{of_chunks!r} is not of chunks in the host's memory")
        if len(of_cache.block_ids) != len(of_chunks.block_ids):
            raise ValueError(f"{len(of_cache.block_ids)} blocks for {len(of_chunks.block_ids)} chunks")
        begun, copied = time.perf_counter(), 0
        blocks = split(of_cache.block_ids, of_cache.group_sizes)
        chunks = split(of_chunks.block_ids, of_cache.group_sizes)
        for pages, own_blocks, own_chunks in zip(self._groups, blocks, chunks, strict=True):
            source, target = (own_blocks, own_chunks) if stores else (own_chunks, own_blocks)
            for page in pages:
                width = page.page_size_bytes
                targets[page.tensor_idx][target, :width] = sources[page.tensor_idx][source, :width]
                copied += width * len(source)
        self._done.append(TransferResult(job_id, True, copied, time.perf_counter() - begun))
        return True


def split(ids: NDArray[np.int32], sizes: Iterable[int]) -> list[torch.Tensor]:
    """Ids of all groups as one tensor for each group.

    >>> [one.tolist() for one in split(np.array([7, 8, 9], np.int32), (1, 0, 2))]
    [[7], [], [8, 9]]
    """
    ends = np.cumsum([0, *sizes])
    return [torch.from_numpy(ids[first:last].astype(np.int64)) for first, last in pairwise(ends)]
