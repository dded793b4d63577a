"""Compaction against the definition: attention over the tokens that are not in null blocks, one query at a time."""

import os
import random
import subprocess
import sys

import pytest
import torch
from compaction_batches import BLOCK, BLOCKS, COLUMNS, WIDTH, draw, paged_attention

from vhserve.engine.attention.device_compaction import Compactor


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
        if got.query_indices is None:
            assert decode
            out = paged_attention(q, got.query_start_loc, keys, values, got.block_table, got.seq_lens)
        else:
            assert sorted(got.query_indices.tolist()) == list(range(batch.tokens))
            out = torch.empty_like(q)
            moved = paged_attention(
                q[got.query_indices], got.query_start_loc, keys, values, got.block_table, got.seq_lens
            )
            out.index_copy_(0, got.query_indices, moved)
        out.masked_fill_(got.dropped_mask[:, None], 0)
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
        addresses.add((got.block_table.data_ptr(), got.seq_lens.data_ptr(), got.dropped_mask.data_ptr()))
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
    assert got.dropped_mask.all()


def test_the_kernel_does_what_torch_does() -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = """
import random, sys, torch
sys.path.insert(0, "tests/support")
from compaction_batches import BLOCK, COLUMNS, draw
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
