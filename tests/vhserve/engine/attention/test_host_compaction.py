"""Compaction in host memory against the definition, with several groups that share one plan."""

import random

import pytest
import torch
from compaction_batches import BLOCK, BLOCKS, WIDTH, Batch, draw, paged_attention

from vhserve.engine.attention.host_compaction import CompactionPlan, plan_compaction


def planned(batch: Batch) -> CompactionPlan | None:
    return plan_compaction(batch.table, batch.seq_lens, batch.slots, batch.starts, BLOCK)


def attend(
    batch: Batch, plan: CompactionPlan, table: torch.Tensor, q: torch.Tensor, pages: torch.Tensor
) -> torch.Tensor:
    """What the backend does around its kernel."""
    keys, values = pages
    kept = plan.block_table(table)
    if plan.queries is None:
        return paged_attention(q, batch.starts, keys, values, kept, plan.seq_lens)
    queries, out = plan.queries, torch.zeros_like(q)
    assert queries.max_query_len == max((queries.query_start_loc.diff()).tolist(), default=0)
    rows = torch.from_numpy(queries.rows.kept)
    if len(rows):
        table, lens = kept[queries.requests], plan.seq_lens[queries.requests]
        out[rows] = paged_attention(q[rows], queries.query_start_loc, keys, values, table, lens)
    assert queries.rows.last.tolist() == (batch.starts[1:] - 1).tolist()
    return out


@pytest.mark.parametrize("decode", [True, False], ids=["decode", "mixed"])
def test_attention_over_what_is_kept_is_exact_in_every_group(decode: bool, random_seed: int) -> None:
    rng = random.Random(random_seed)
    torch.manual_seed(random_seed)
    pages = torch.randn(2, BLOCKS * BLOCK, WIDTH)
    pages[:, :BLOCK] = torch.nan  # reading the null block would show
    whole = moved = 0
    for _ in range(150):
        batch = draw(rng, decode)
        plan = planned(batch)
        if plan is None:
            whole += 1
            assert all(batch.reference_keys[: int(batch.starts[-1])])
            continue
        q = torch.randn(batch.tokens, WIDTH)
        expected = torch.zeros_like(q)
        for token, slots in enumerate(batch.reference_keys):
            if slots:
                expected[token] = torch.softmax(q[token] @ pages[0, slots].T, -1) @ pages[1, slots]
        moved += plan.queries is not None
        got = attend(batch, plan, batch.table, q, pages)
        torch.testing.assert_close(got[: len(expected)], expected, rtol=1e-5, atol=1e-5)
        # Another group holds the same tokens in other blocks.
        renamed = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(BLOCKS - 1)])
        elsewhere = torch.empty_like(pages).view(2, BLOCKS, BLOCK, WIDTH)
        elsewhere[:, renamed] = pages.view(2, BLOCKS, BLOCK, WIDTH)
        other = attend(batch, plan, renamed[batch.table.long()].int(), q, elsewhere.view_as(pages))
        torch.testing.assert_close(other, expected, rtol=1e-5, atol=1e-5)
    assert whole > 1
    assert moved > 8


def test_an_empty_batch_drops_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int32)
    assert plan_compaction(none.view(0, 4), none, none.long(), torch.zeros(1, dtype=torch.int32), BLOCK) is None
