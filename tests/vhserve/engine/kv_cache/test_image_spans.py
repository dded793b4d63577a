"""Image spans: by token ids as by vLLM's placeholders, never across images, and enough to drop whole blocks."""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from placeholder_patterns import PLACEHOLDERS, Placeholder
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange

from calibrate.models.image_spans import span_mask
from profiles.image_spans import OLD_RULE, RULE, Modality, SpanRule, Spans, merge
from vhserve.engine.kv_cache.image_spans import image_blocks, spans_of

BLOCKS = (16, 32, 128)
LEAST = 0.9
"""Share of the whole blocks inside a picture that heads must be able to drop."""


@dataclass(frozen=True)
class Medium:
    """A part of a prompt: so many tokens of text, then an image or video, by its embeddings."""

    gap: int
    modality: Modality
    embeds: tuple[bool, ...]


@st.composite
def runs(draw: st.DrawFn) -> tuple[bool, ...]:
    """Runs of embeddings with holes between, as long as, longer and shorter than what is bridged."""
    lengths = draw(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10)), min_size=1, max_size=5))
    start, end = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    inside = [one for own, hole in lengths for one in [*[True] * own, *[False] * hole]]
    while not inside[-1]:
        inside.pop()
    return (*[False] * start, *inside, *[False] * end)


def small(placeholder: Placeholder) -> tuple[bool, ...]:
    """A family's placeholder, with every run of embeddings five times shorter, so that prompts stay short."""
    kept, length = list[bool](), 0
    for one in placeholder.embeds:
        length = length + 1 if one else 0
        if not one or length % 5 == 1:
            kept.append(one)
    return tuple(kept[:200])


PARTS = st.one_of(runs(), st.sampled_from([small(one) for one in PLACEHOLDERS.values()]))
PROMPTS = st.lists(
    st.builds(Medium, st.integers(0, 10), st.sampled_from(["image", "image", "video"]), PARTS), max_size=4
)


def laid_out(media: list[Medium]) -> tuple[list[bool], list[MultiModalFeatureSpec]]:
    """A prompt's tokens, whether each is an embedding, and vLLM's features of it."""
    tokens, features = list[bool](), list[MultiModalFeatureSpec]()
    for medium in media:
        tokens += [False] * medium.gap
        mask = None if all(medium.embeds) else torch.tensor(medium.embeds)
        where = PlaceholderRange(offset=len(tokens), length=len(medium.embeds), is_embed=mask)
        features.append(MultiModalFeatureSpec(data=None, modality=medium.modality, identifier="one", mm_position=where))
        tokens += medium.embeds
    return tokens, features


def slow_spans(media: list[Medium]) -> Spans:
    """The rule position by position: a hole counts if it is short, inside one image, and not of a video."""
    covered, at = set[int](), 0
    for medium in media:
        at += medium.gap
        places = [at + index for index, one in enumerate(medium.embeds) if one]
        for place, following in zip(places, [*places[1:], places[-1]], strict=True):
            hole = following - place - 1
            covered.add(place)
            if medium.modality == "image" and 0 < hole <= 8:
                covered.update(range(place, following))
        at += len(medium.embeds)
    return merge((one, one + 1) for one in covered)


@settings(max_examples=150, deadline=None)
@given(PROMPTS)
@example([Medium(2, "image", (True,)), Medium(1, "image", (True,))])
@example([Medium(0, "image", (True, False, True)), Medium(0, "image", (True,))])
@example([Medium(0, "video", (True, False, True))])
def test_spans_by_token_ids_are_those_of_vllms_placeholders(media: list[Medium]) -> None:
    tokens, features = laid_out(media)
    spans = spans_of(features, RULE)
    note(f"{spans}")
    counts = [(one.modality, sum(one.embeds)) for one in media]
    assert RULE.spans_of_tokens(tokens, counts) == spans
    assert spans == slow_spans(media)
    if tokens:
        inside = span_mask(torch.tensor([tokens]), [counts])[0]
        assert {place for start, stop in spans for place in range(start, stop)} == set(inside.nonzero()[:, 0].tolist())


def test_a_prompt_with_other_counts_is_refused() -> None:
    for count in (1, 3):
        with pytest.raises(ValueError, match="2 tokens of images"):
            RULE.spans_of_tokens([True, False, True], [("image", count)])


def test_audio_counts_as_text() -> None:
    where = PlaceholderRange(offset=1, length=40)
    assert not spans_of([MultiModalFeatureSpec(data=None, modality="audio", identifier="a", mm_position=where)], RULE)


def shares(placeholder: Placeholder, block_size: int, rule: SpanRule = RULE) -> tuple[float, float]:
    """Of a picture at every place in a block: share of its tokens that lie in image blocks, and of its whole blocks.

    A whole block holds nothing but tokens from the picture's first embedding to its last.
    """
    embeds, features = laid_out([Medium(0, "image", placeholder.embeds)])
    before = [0, *accumulate(embeds)]
    spans, (first, *_, last) = spans_of(features, rule), [place for place, one in enumerate(embeds) if one]
    tokens = dropped = whole = 0
    for gap in range(block_size):
        for start, stop in image_blocks([(gap + start, gap + stop) for start, stop in spans], block_size):
            tokens += before[stop * block_size - gap] - before[start * block_size - gap]
            dropped += stop - start
        whole += sum(stop - start for start, stop in image_blocks([(gap + first, gap + last + 1)], block_size))
    return tokens / (block_size * placeholder.image_tokens), dropped / whole


@pytest.mark.parametrize("family", PLACEHOLDERS)
def test_whole_blocks_of_a_picture_are_dropped(family: str) -> None:
    for block_size in BLOCKS:
        assert shares(PLACEHOLDERS[family], block_size)[1] >= LEAST


@pytest.mark.parametrize(("family", "most"), [("Mistral-Small-3.1", 0), ("SmolVLM2-500M", 0), ("Idefics3-8B", 0.5)])
def test_without_bridging_hardly_any_would_be(family: str, most: float) -> None:
    assert shares(PLACEHOLDERS[family], 128, OLD_RULE)[1] <= most


def test_the_table_of_the_documentation() -> None:
    page = (Path(__file__).parents[4] / "docs" / "serving.md").read_text()
    for family, placeholder in PLACEHOLDERS.items():
        now = (f"{shares(placeholder, size)[0]:.0%}" for size in BLOCKS)
        unbridged = (f"{shares(placeholder, size, OLD_RULE)[0]:.0%}" for size in BLOCKS)
        row = f"| {family} | {placeholder.picture} | {placeholder.image_tokens:,} | {' | '.join([*now, *unbridged])} |"
        print(row)
        assert row in page
