"""Compaction against the definition: attention over the tokens that are not in null blocks, one query at a time."""

import os
import random
import subprocess
import sys

import pytest
import torch
from compaction_batches import BLOCK, BLOCKS, COLUMNS, WIDTH, draw, paged_attention

from vhserve.engine.attention.device_compaction import Compactor, SingleQueries


@pytest.mark.parametrize("decode", [True, False], ids=["decode", "mixed"])
def test_attention_over_compacted_metadata_is_exact(decode: bool, random_seed: int) -> None:
    rng = random.Random(random_seed)
    torch.manual_seed(random_seed)
    compact = Compactor(8, 2048, BLOCK, "cpu")
    keys, values = torch.randn(BLOCKS * BLOCK, WIDTH), torch.randn(BLOCKS * BLOCK, WIDTH)
    keys[:BLOCK] = values[:BLOCK] = torch.nan  # reading the null block would show
    dropped = 0
    for _ in range(150):
        batch = draw(rng, decode)
        tables = compact(batch.table, batch.seq_lens, SingleQueries(batch.slots, batch.starts) if decode else None)
        q = torch.randn(batch.tokens, WIDTH)
        if decode:
            out = paged_attention(q, batch.starts, keys, values, tables.block_table, tables.seq_lens)
        else:
            moved = compact.move_queries(batch.slots, batch.starts)
            assert sorted(moved.indices.tolist()) == list(range(batch.tokens))
            out = torch.empty_like(q)
            kept = paged_attention(
                q[moved.indices], moved.query_start_loc, keys, values, tables.block_table, tables.seq_lens
            )
            out.index_copy_(0, moved.indices, kept)
            out.masked_fill_(moved.dropped_mask[:, None], 0)
        expected = torch.zeros_like(q)
        for token, slots in enumerate(batch.reference_keys):
            if slots:
                expected[token] = torch.softmax(q[token] @ keys[slots].T, -1) @ values[slots]
        dropped += sum(not slots for slots in batch.reference_keys)
        real = len(batch.reference_keys)  # what follows is padding
        torch.testing.assert_close(out[:real], expected[:real], rtol=1e-5, atol=1e-5)
    assert dropped > 20


def test_buffers_keep_their_addresses() -> None:
    """A CUDA graph is captured with one batch and replayed with others."""
    compact = Compactor(8, 2048, BLOCK, "cpu")
    rng = random.Random(0)
    addresses = set()
    for case in range(6):
        batch = draw(rng, decode=case % 2 == 1)
        got = compact(batch.table, batch.seq_lens, SingleQueries(batch.slots, batch.starts) if case % 2 else None)
        addresses.add((got.block_table.data_ptr(), got.seq_lens.data_ptr()))
    assert len(addresses) == 1


def test_capture_shapes_are_safe() -> None:
    """CUDA graphs are captured with all-zero tables, and slots that are all padding."""
    compact = Compactor(4, 4, BLOCK, "cpu")
    slots, starts = torch.full((4,), -1), torch.arange(5, dtype=torch.int32)
    lengths = torch.full((4,), 100, dtype=torch.int32)
    got = compact(torch.zeros(4, COLUMNS, dtype=torch.int32), lengths, SingleQueries(slots, starts))
    assert got.seq_lens.tolist() == [0, 0, 0, 0]
    assert compact.move_queries(slots, starts).dropped_mask.all()


def test_the_kernel_does_what_torch_does(random_seed: int) -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = """
import random, sys, torch
sys.path.insert(0, "tests/support")
from compaction_batches import BLOCK, COLUMNS, draw
from vhserve.engine.attention.device_compaction import Compactor, SingleQueries
from vhserve.engine.attention.compaction_kernel import compact_tables
rng = random.Random(int(sys.argv[1]))
for case in range(25):
    batch = draw(rng, decode=case % 2 == 1)
    queries = SingleQueries(batch.slots, batch.starts) if case % 2 else None
    expected = Compactor(8, 2048, BLOCK, "cpu")(batch.table, batch.seq_lens, queries)
    table, lens = torch.zeros(8, COLUMNS + 1, dtype=torch.int32), torch.full((8,), -1, dtype=torch.int32)
    compact_tables(batch.table, batch.seq_lens, table, lens, BLOCK, queries)
    assert torch.equal(lens[: batch.requests], expected.seq_lens)
    for row in range(batch.requests):
        blocks = -(-int(lens[row]) // BLOCK)
        assert torch.equal(table[row, :blocks], expected.block_table[row, :blocks])
print("same")
"""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", code, str(random_seed)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr
