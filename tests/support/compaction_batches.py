"""Random batches with null blocks, and attention over them by definition: what compaction must not change.

Knows nothing of vLLM or of the compaction under test.
"""

import random
from dataclasses import dataclass

import torch

BLOCK = 16


COLUMNS = 12


WIDTH = 8


BLOCKS = 200


@dataclass
class Batch:
    """A random batch with stale table columns past each request's length, and padding at the end of both axes."""

    table: torch.Tensor
    seq_lens: torch.Tensor
    slots: torch.Tensor
    starts: torch.Tensor
    requests: int
    tokens: int
    reference_keys: list[list[int]]  # of each real token, the cache slots it attends to; empty if it is dropped


def draw(rng: random.Random, decode: bool) -> Batch:
    requests, padded = rng.randint(1, 6), rng.choice([0, 0, 2])
    table = torch.randint(1, BLOCKS, (requests + padded, COLUMNS), dtype=torch.int32)
    free = list(range(1, BLOCKS))
    rng.shuffle(free)
    seq_lens, query_lens, slots, reference = [], [], [], []
    for row in range(requests):
        length = rng.randint(1, COLUMNS * BLOCK)
        queries = 1 if decode else rng.randint(1, length)
        blocks = -(-length // BLOCK)
        share = rng.choice([0.0, 0.4, 1.0])
        ids = [0 if rng.random() < share else free.pop() for _ in range(blocks)]
        table[row, :blocks] = torch.tensor(ids, dtype=torch.int32)
        seq_lens.append(length)
        query_lens.append(queries)
        for position in range(length - queries, length):
            slots.append(ids[position // BLOCK] * BLOCK + position % BLOCK)
            seen = [
                ids[before // BLOCK] * BLOCK + before % BLOCK
                for before in range(position + 1)
                if ids[before // BLOCK] != 0
            ]
            reference.append(seen if ids[position // BLOCK] else [])
    starts = [0]
    for queries in query_lens:
        starts.append(starts[-1] + queries)
    padding = rng.choice([0, 3]) if padded else 0
    return Batch(
        table,
        torch.tensor(seq_lens + [0] * padded, dtype=torch.int32),
        torch.tensor(slots + [-1] * padding),
        torch.tensor(starts + [starts[-1] + padding] * padded, dtype=torch.int32),
        requests + padded,
        starts[-1] + padding,
        reference,
    )


def paged_attention(
    q: torch.Tensor,
    starts: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    lens: torch.Tensor,
) -> torch.Tensor:
    """What a kernel does: causal, queries at the end of each request, and zero where there is no token to see.

    Other rows are not written (NaN here).
    """
    out = torch.full_like(q, torch.nan)
    for row in range(len(lens)):
        first, last, length = int(starts[row]), int(starts[row + 1]), int(lens[row])
        if first == last:
            continue
        if length == 0:
            out[first:last] = 0
            continue
        slots = [int(table[row, i // BLOCK]) * BLOCK + i % BLOCK for i in range(length)]
        mask = torch.arange(length)[None] <= torch.arange(last - first)[:, None] + length - (last - first)
        scores = (q[first:last] @ keys[slots].T).masked_fill(~mask, -torch.inf)
        out[first:last] = torch.softmax(scores, -1) @ values[slots]
    return out
