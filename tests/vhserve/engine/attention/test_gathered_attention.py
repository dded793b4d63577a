"""Heads taken out of q, k and v and put back, against indexing head by head; any kept attention will do."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from profiles.planning.layout import LayerLayout, TreatedHeads
from vhserve.engine.attention.gathered_attention import GatheredAttention
from vhserve.engine.layer_plan import RemovedMeans

SIZE, TOKENS = 3, 5


class Told(nn.Module):
    """Puts out a query head's number, its KV head's, and where both stand."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        queries, keys, values = (one.view(TOKENS, -1, SIZE) for one in (query, key, value))
        group = queries.shape[1] // keys.shape[1]
        return (queries + (keys * values).repeat_interleave(group, 1)).flatten(1)


def expected(
    q: torch.Tensor, kv: torch.Tensor, kept: set[int], group: int, means: dict[int, torch.Tensor]
) -> torch.Tensor:
    heads = []
    for head in range(q.shape[1]):
        own = q[:, head] + kv[:, head // group] * kv[:, head // group]
        heads.append(own if head in kept else means.get(head, torch.zeros(SIZE)).expand(TOKENS, -1))
    return torch.stack(heads, 1).flatten(1)


@pytest.mark.parametrize("compensated", [False, True])
def test_heads_come_back_to_their_places(compensated: bool, random_seed: int) -> None:
    rng = random.Random(random_seed)
    torch.manual_seed(random_seed)
    for _ in range(100):
        group, kv_heads = rng.choice([1, 2, 3]), rng.randrange(1, 6)
        by_group = [rng.choice(["full", "text_only", "removed"]) for _ in range(kv_heads)]
        layout = LayerLayout.of(**{name: heads_of(by_group, name, group) for name in ("full", "text_only")})
        removed = heads_of(by_group, "removed", group).queries
        means = RemovedMeans(removed, np.random.default_rng(random_seed).normal(size=(len(removed), SIZE)))
        given = means if compensated and removed else None
        q, kv = torch.randn(TOKENS, kv_heads * group, SIZE), torch.randn(TOKENS, kv_heads, SIZE)
        kept = Told() if layout.queries else None
        attention = GatheredAttention(kv_heads * group, SIZE, layout, kept, given)
        # As vLLM hands them over: parts of one projection.
        parts = torch.cat([q.flatten(1), kv.flatten(1), kv.flatten(1)], 1)
        found = attention(*parts.split([kv_heads * group * SIZE, kv_heads * SIZE, kv_heads * SIZE], -1))
        rows = {head: torch.tensor(means.means[i]).float() for i, head in enumerate(removed)} if given else {}
        torch.testing.assert_close(found, expected(q, kv, set(layout.queries), group, rows))


def heads_of(by_group: list[str], name: str, group: int) -> TreatedHeads:
    kv = tuple(index for index, one in enumerate(by_group) if one == name)
    return TreatedHeads(tuple(head for index in kv for head in range(index * group, (index + 1) * group)), kv)
