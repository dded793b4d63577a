"""The mask of every registered treatment, and of one thrown in, against its definition query by query."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from throwaway_treatments import THIN, registered

from calibrate.datasets import open_dataset
from calibrate.masking.image_blocks import image_block_numbers
from calibrate.masking.masks import hidden_keys, masked_output
from calibrate.masking.positions import Positions
from calibrate.masking.treatments import treated
from calibrate.models.batches import make_batch
from calibrate.models.loading import LoadedModel
from profiles.treatments import TREATMENTS, Treatment

IMAGE = 9
BLOCK = 2
#        padding  text  image in blocks of 2, off by one      text  image     text, then the reply
TOKENS = [0, 0, 1, 2, 3, *[IMAGE] * 8, 4, *[IMAGE] * 4, 5, 6, 7, 8, 1]
VALID = [False] * 2 + [True] * (len(TOKENS) - 2)
NUMBERS = [-1] * 6 + [0, 0, 1, 1, 2, 2, -1, -1] + [0, 0, 1, 1] + [-1] * 5
PROMPT = 18
"""Tokens without padding; the last three are the reply."""

CASES = [*(one for one in TREATMENTS.values() if one.computed), THIN]


@pytest.fixture(autouse=True)
def throwaway() -> Iterator[None]:
    with registered(THIN):
        yield


def noted(prompt_lengths: list[int] | None) -> Positions:
    positions = Positions(BLOCK, prompt_lengths)
    positions.note(torch.tensor([TOKENS]) == IMAGE, torch.tensor([VALID]))
    return positions


def sees(treatment: Treatment, query: int, key: int, prompt: int | None) -> bool:
    """Whether a query sees a key of the example, by the definition; positions count padding too."""
    in_reply = prompt is not None and query >= 2 + prompt
    stride = (treatment.seen_in_reply if in_reply else treatment.seen_in_prompt).stride
    return NUMBERS[key] < 0 or (stride is not None and NUMBERS[key] % stride == 0)


def test_blocks_are_numbered_within_their_span() -> None:
    tokens, valid = torch.tensor([TOKENS]), torch.tensor([VALID])
    assert image_block_numbers(tokens == IMAGE, valid, BLOCK)[0].tolist() == NUMBERS
    single = image_block_numbers(tokens == IMAGE, valid)[0].tolist()
    assert single == [-1] * 5 + list(range(8)) + [-1] + list(range(4)) + [-1] * 5


@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("treatment", CASES, ids=lambda one: one.name)
def test_a_mask_is_the_definition(treatment: Treatment, prompt: int | None) -> None:
    n = len(TOKENS)
    hidden, zeroed = hidden_keys(treatment, noted(None if prompt is None else [prompt]))
    expected = [[not sees(treatment, query, key, prompt) for key in range(n)] for query in range(n)]
    assert hidden.expand(1, n, n)[0].tolist() == expected
    assert zeroed[0].tolist() == [not sees(treatment, query, query, prompt) for query in range(n)]


@pytest.mark.parametrize("treatment", CASES, ids=lambda one: one.name)
def test_heads_put_out_what_the_definition_says(treatment: Treatment) -> None:
    n, rng = len(TOKENS), np.random.default_rng(0)
    query, key, value = (rng.normal(size=(1, 2, n, 4)) for _ in range(3))
    masking = hidden_keys(treatment, noted([PROMPT]))
    found = masked_output(*map(torch.from_numpy, (query, key, value)), None, *masking, 0.5)[0].numpy()
    for position in range(n):
        for head in range(2):
            keys = [one for one in range(position + 1) if sees(treatment, position, one, PROMPT)]
            weights = np.exp(0.5 * key[0, head, keys] @ query[0, head, position])
            expected = weights / weights.sum() @ value[0, head, keys]
            expected = expected if sees(treatment, position, position, PROMPT) else np.zeros(4)
            np.testing.assert_allclose(found[position, head], expected, atol=1e-12)


def test_a_model_under_treatments_of_prompt_and_reply(llava: LoadedModel) -> None:
    """An evicted head changes the reply only; a thinned head changes both."""
    batch = make_batch(llava, list(open_dataset("synthetic", samples=2, seed=2)))
    lengths = [length - 3 for length in batch.valid.sum(1).tolist()]  # as if the last three tokens were the reply
    rows = [["full"] * llava.geometry.query_heads for _ in range(llava.geometry.layers)]

    def logits(name: str) -> torch.Tensor:
        rows[1] = [name] * len(rows[1])
        with treated(llava.model, rows, prompt_lengths=lengths), torch.inference_mode():
            return llava.model(**batch.inputs, use_cache=False).logits

    full, evicted, thin, text_only = map(logits, ("full", "evict", THIN.name, "text_only"))
    valid = batch.valid
    reply = valid & (valid.cumsum(1) > torch.tensor(lengths)[:, None])
    assert int(reply.sum()) == 6
    prompt = valid & ~reply
    torch.testing.assert_close(evicted[prompt], full[prompt], rtol=0, atol=1e-5)
    assert (evicted[reply] - full[reply]).abs().max() > 1e-3
    assert (evicted[reply] - text_only[reply]).abs().max() > 1e-3
    for other in (full, text_only):
        assert (thin[prompt] - other[prompt]).abs().max() > 1e-3
