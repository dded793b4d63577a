"""How a projection's weight is divided between the heads that drop tokens and the others."""

import pytest
import torch

pytestmark = pytest.mark.vllm

SIZE = 4
"""Of a head."""


def test_every_row_of_a_projection_is_in_one_part() -> None:
    from vhserve.engine.weights.dropped_tokens import DroppedTokensQKV, HeadParts

    # Five query heads and four KV heads, of which the last three and two drop tokens.
    queries, keys = HeadParts(2 * SIZE, 3 * SIZE), HeadParts(2 * SIZE, 2 * SIZE)
    weight = torch.arange(13 * SIZE * 3.0).view(13 * SIZE, 3)
    others, lasts = DroppedTokensQKV("layer", (queries, keys, keys)).weights(weight)
    heads = weight.split(SIZE)
    assert torch.equal(others, torch.cat([heads[index] for index in (0, 1, 5, 6, 9, 10)]))
    assert torch.equal(lasts, torch.cat([heads[index] for index in (2, 3, 4, 7, 8, 11, 12)]))


def test_every_column_of_an_output_projection_is_in_one_part() -> None:
    from vhserve.engine.weights.dropped_tokens import DroppedTokensOutput, HeadParts

    weight = torch.arange(3.0 * 5 * SIZE).view(3, 5 * SIZE)
    others, lasts = DroppedTokensOutput("layer", HeadParts(2 * SIZE, 3 * SIZE), 3).weights(weight)
    assert torch.equal(torch.cat([others, lasts], 1), weight)
    assert others.shape == (3, 2 * SIZE)
