"""Compaction against the definition: attention over the tokens that are not in null blocks, one query at a time."""

import os
import random
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from vhserve.engine.attention.device_compaction import Compactor

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
    """What a kernel does: causal, queries at the end of each request; other rows are not written (NaN here)."""
    out = torch.full_like(q, torch.nan)
    for row in range(len(lens)):
        first, last, length = int(starts[row]), int(starts[row + 1]), int(lens[row])
        if first == last or length == 0:
            continue
        slots = [int(table[row, i // BLOCK]) * BLOCK + i % BLOCK for i in range(length)]
        mask = torch.arange(length)[None] <= torch.arange(last - first)[:, None] + length - (last - first)
        scores = (q[first:last] @ keys[slots].T).masked_fill(~mask, -torch.inf)
        out[first:last] = torch.softmax(scores, -1) @ values[slots]
    return out


@pytest.mark.parametrize("decode", [True, False], ids=["decode", "mixed"])
def test_attention_over_compacted_metadata_is_exact(decode: bool) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    compact = Compactor(8, 2048, BLOCK, "cpu")
    keys, values = torch.randn(BLOCKS * BLOCK, WIDTH), torch.randn(BLOCKS * BLOCK, WIDTH)
    keys[:BLOCK] = values[:BLOCK] = torch.nan  # reading the null block would show
    dropped = 0
    for _ in range(150):
        batch = draw(rng, decode)
        got = compact(
            batch.table,
            batch.seq_lens,
            batch.slots,
            batch.starts,
            requests=batch.requests,
            tokens=batch.tokens,
            decode=decode,
        )
        q = torch.randn(batch.tokens, WIDTH)
        if got.order is None:
            assert decode
            out = paged_attention(q, got.query_start_loc, keys, values, got.block_table, got.seq_lens)
        else:
            assert sorted(got.order.tolist()) == list(range(batch.tokens))
            out = torch.empty_like(q)
            moved = paged_attention(q[got.order], got.query_start_loc, keys, values, got.block_table, got.seq_lens)
            out.index_copy_(0, got.order, moved)
        out.masked_fill_(got.dropped[:, None], 0)
        expected = torch.zeros_like(q)
        for token, slots in enumerate(batch.reference_keys):
            if slots:
                expected[token] = torch.softmax(q[token] @ keys[slots].T, -1) @ values[slots]
        dropped += sum(not slots for slots in batch.reference_keys)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    assert dropped > 20


def test_buffers_keep_their_addresses() -> None:
    """A CUDA graph is captured with one batch and replayed with others."""
    compact = Compactor(8, 2048, BLOCK, "cpu")
    rng = random.Random(0)
    addresses = set()
    for case in range(6):
        batch = draw(rng, decode=case % 2 == 0)
        got = compact(
            batch.table,
            batch.seq_lens,
            batch.slots,
            batch.starts,
            requests=batch.requests,
            tokens=batch.tokens,
            decode=case % 2 == 0,
        )
        addresses.add((got.block_table.data_ptr(), got.seq_lens.data_ptr(), got.dropped.data_ptr()))
    assert len(addresses) == 1


def test_capture_shapes_are_safe() -> None:
    """CUDA graphs are captured with all-zero tables, and slots that are all padding."""
    compact = Compactor(4, 4, BLOCK, "cpu")
    got = compact(
        torch.zeros(4, COLUMNS, dtype=torch.int32),
        torch.full((4,), 100, dtype=torch.int32),
        torch.full((4,), -1),
        torch.arange(5, dtype=torch.int32),
        requests=4,
        tokens=4,
        decode=True,
    )
    assert got.seq_lens.tolist() == [0, 0, 0, 0]
    assert got.dropped.all()


def test_the_kernel_does_what_torch_does() -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = """
import random, sys, torch
sys.path.insert(0, "tests/vhserve")
from test_compaction import BLOCK, COLUMNS, draw
from vhserve.engine.attention.device_compaction import Compactor
from vhserve.engine.attention.compaction_kernel import compact_tables
rng = random.Random(int(sys.argv[1]))
for case in range(25):
    batch = draw(rng, decode=False)
    compact = Compactor(8, 2048, BLOCK, "cpu")
    expected = compact(batch.table, batch.seq_lens, batch.slots, batch.starts, requests=batch.requests,
                       tokens=batch.tokens, decode=False)
    table, lens = torch.zeros(8, COLUMNS + 1, dtype=torch.int32), torch.full((8,), -1, dtype=torch.int32)
    compact_tables(batch.table, batch.seq_lens, table, lens, BLOCK)
    assert torch.equal(lens[: batch.requests], expected.seq_lens)
    for row in range(batch.requests):
        blocks = -(-int(lens[row]) // BLOCK)
        assert torch.equal(table[row, :blocks], expected.block_table[row, :blocks])
print("same")
"""
    pytest.importorskip("triton")
    seed = str(random.randrange(10**6))
    print("seed", seed)
    done = subprocess.run(
        [sys.executable, "-c", code, seed],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr
