"""What a worker knows on the host of a step's queries, against the definition, token by token."""

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from profiles.image_spans import SpanRule
from profiles.treatments import EVICT, TEXT_ONLY, THINNED, TREATMENTS
from vhserve.engine.attention.known_queries import RequestBlocks
from vhserve.engine.kv_cache.image_spans import spans_of, unseen_blocks

BLOCK = 4
RULE = SpanRule(bridge=1)
CPU = torch.device("cpu")


def drawn_features(rng: random.Random) -> list[Any]:
    """Up to three images of a prompt, some of which have holes."""
    features, at = [], rng.randrange(6)
    for _ in range(rng.randrange(4)):
        size = rng.randint(1, 20)
        ranges = [(at, at + size - 1)] if size < 5 else [(at, at + 2), (at + 3 + rng.randrange(3), at + size - 1)]
        ranges = [(first, last) for first, last in ranges if first <= last]
        position = SimpleNamespace(extract_embeds_range=lambda ranges=ranges: ranges)
        features.append(SimpleNamespace(modality="image", mm_position=position))
        at += size + rng.randrange(7)
    return features


def test_steps_are_what_the_definition_says(random_seed: int) -> None:
    rng = random.Random(random_seed)
    treatments = [TEXT_ONLY, EVICT, next(iter(THINNED))]
    dropped = 0
    for _ in range(200):
        features = {str(number): drawn_features(rng) for number in range(rng.randint(1, 5))}
        requests = RequestBlocks(treatments, RULE, BLOCK, CPU)
        for name, own in features.items():
            requests.add(name, own)
        names = rng.sample(list(features), len(features))
        computed = np.array([rng.randrange(70) for _ in names])
        scheduled = np.array([rng.randint(1, 40) for _ in names], dtype=np.int32)
        starts = np.concatenate([[0], np.cumsum(scheduled)]).astype(np.int32)
        step = requests.step(names, computed, scheduled, starts)
        for treatment in treatments:
            unseen = [
                set(unseen_blocks(spans_of(features[name], RULE), BLOCK, treatment.seen_in_prompt)) for name in names
            ]
            keeps = [
                [position // BLOCK not in of_request for position in range(first, first + count)]
                for of_request, first, count in zip(unseen, computed, scheduled, strict=True)
            ]
            longest = max(
                sum(position // BLOCK not in of_request for position in range(first + count))
                for of_request, first, count in zip(unseen, computed, scheduled, strict=True)
            )
            assert step.longest(treatment.name) == longest
            known = step.of(treatment.name)
            if known is None:
                assert all(map(all, keeps))
                continue
            expected = [token for token, kept in enumerate(kept for row in keeps for kept in row) if kept]
            dropped += int(scheduled.sum()) - len(expected)
            assert known.rows.kept.tolist() == known.kept_indices.tolist() == expected
            assert np.diff(known.starts).tolist() == [sum(row) for row in keeps]
            assert known.query_start_loc.dtype == torch.int32
            assert known.most == max(sum(row) for row in keeps)
            assert known.rows.last.tolist() == (starts[1:] - 1).tolist()
    assert dropped > 1000


def test_who_left_is_forgotten_and_who_comes_again_is_another() -> None:
    requests = RequestBlocks(TREATMENTS.values(), RULE, BLOCK, CPU)
    whole = SimpleNamespace(modality="image", mm_position=SimpleNamespace(extract_embeds_range=lambda: [(0, 7)]))

    def dropped() -> bool:
        of_step = requests.step(["one"], np.array([0]), np.array([8]), np.array([0, 8]))
        return of_step.of(TEXT_ONLY.name) is not None

    assert not dropped()
    requests.add("one", [whole])
    assert dropped()
    requests.add("one", [])
    assert not dropped()
    requests.add("one", [whole])
    requests.remove("one")
    requests.remove("one")
    assert not dropped()
