"""The synthetic world: answers follow from the scene, boxes lie where they say, and samples follow from their seeds.

Counts are checked by recounting objects from the pixels alone, with no help from the scene that drew them.
"""

import re
import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from calibrate.datasets.sample import Sample
from calibrate.datasets.synthetic import FAMILIES, REPLIES, make_sample, samples
from calibrate.datasets.synthetic.draw import draw
from calibrate.datasets.synthetic.scene import EMPTY, Scene, make_scene
from calibrate.datasets.synthetic.vocabulary import (
    CELL,
    CELLS,
    COLOURS,
    GRID,
    PLURALS,
    REGIONS,
    SHAPES,
    WORDS,
    region_box,
)

PALETTE = np.array([(215, 45, 40), (45, 175, 65), (55, 85, 225), (225, 205, 55)])
PIXELS_OF_SHAPE = {32: 0, 36: 1, 24: 2, 20: 3}
"""Painted pixels of a circle, a square, a triangle and a cross."""


def tiles_of(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    grid = pixels.reshape(GRID, CELL, GRID, CELL, 3).swapaxes(1, 2)
    return grid.reshape(CELLS, CELL, CELL, 3).astype(np.int64)


def read_kinds(sample: Sample) -> list[tuple[str, str] | None]:
    """What lies in each cell, read off the pixels: colour by nearest palette entry, shape by painted area."""
    found: list[tuple[str, str] | None] = []
    for tile in tiles_of(np.asarray(sample.image)):
        inner = tile[1:-1, 1:-1].reshape(-1, 3)
        painted = inner[inner.max(1) > 100]
        if len(painted) == 0:
            found.append(None)
            continue
        colour = int(np.abs(PALETTE - painted[0]).sum(1).argmin())
        found.append((COLOURS[colour], SHAPES[PIXELS_OF_SHAPE[len(painted)]]))
    return found


def outlined_cells(sample: Sample) -> list[int]:
    ring = np.pad(np.zeros((CELL - 2, CELL - 2), dtype=bool), 1, constant_values=True)
    return [i for i, tile in enumerate(tiles_of(np.asarray(sample.image))) if (tile[ring] == 255).all()]


def answer_by_looking(sample: Sample) -> str:
    """Answer a question from its words and the pixels."""
    kinds = read_kinds(sample)
    there = [kind for kind in kinds if kind]
    stem, *listed = re.split(r" (?=A\. )", sample.question)
    singular = {plural: shape for shape, plural in PLURALS.items()}
    if found := re.fullmatch(r"How many are there like the one in region (\w+)\?", stem):
        answer = str(there.count(kinds[REGIONS.index(found[1])]))  # type: ignore[arg-type]
    elif found := re.fullmatch(r"How many (\w+) things are there\?", stem):
        answer = str(sum(colour == found[1] for colour, _ in there))
    elif found := re.fullmatch(r"How many (\w+) of any colour are there\?", stem):
        answer = str(sum(shape == singular[found[1]] for _, shape in there))
    elif found := re.fullmatch(r"How many (\w+) (\w+) are there\?", stem):
        answer = str(there.count((found[1], singular[found[2]])))
    elif found := re.fullmatch(r"Is there a (\w+) (\w+) in the picture\?", stem):
        answer = "yes" if (found[1], found[2]) in there else "no"
    elif found := re.fullmatch(r"What is in region (\w+)\? How many are there\?", stem):
        kind = kinds[REGIONS.index(found[1])]
        assert kind is not None
        answer = " ".join([*kind, str(there.count(kind))])
    elif found := re.fullmatch(r"What (colour|shape) is in region (\w+)\?", stem):
        kind = kinds[REGIONS.index(found[2])]
        assert kind is not None
        answer = kind[found[1] == "shape"]
    else:
        raise AssertionError(f"wording nobody knows: {stem}")
    if not listed:
        return answer
    options = dict(re.findall(r"([A-D])\. (\w+)", listed[0]))
    assert len(options) == len(set(options.values())) == 4
    return next(letter for letter, option in options.items() if option == answer)


@pytest.mark.parametrize("family", [*FAMILIES, *REPLIES])
def test_answers_are_what_the_pixels_say(family: str) -> None:
    for i in range(30):
        sample = make_sample(family, i)
        assert answer_by_looking(sample) == sample.answer, sample.id
        assert sample.answer in sample.options
        assert (sample.family, sample.image.size, sample.image.mode) == (family, (96, 96), "RGB")


@pytest.mark.parametrize("family", [*FAMILIES, *REPLIES])
def test_boxes_hold_what_the_question_is_about(family: str) -> None:
    for i in range(20):
        sample = make_sample(family, i)
        if sample.box is None:
            assert sample.answer == "no"
            continue
        cell = next(c for c in range(CELLS) if region_box(c) == sample.box)
        kind = read_kinds(sample)[cell]
        assert kind is not None
        assert sample.answer != "no"
        stem = sample.question.split(" A. ")[0]
        named = re.search(r"region (\w+)", stem)
        if named:
            assert REGIONS[cell] == named[1]
        else:
            words = set(re.findall(r"\w+", stem))
            assert any(w in words for w in (kind[0], kind[1], PLURALS[kind[1]]))
        assert outlined_cells(sample) == ([cell] if family.endswith("_box") else [])


def test_a_box_changes_the_picture_only_at_its_border() -> None:
    scene = make_scene(np.random.default_rng(0))
    changed = (draw(scene) != draw(scene, 17)).any(-1)
    ys, xs = np.nonzero(changed)
    assert changed.sum() == 4 * (CELL - 1)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == region_box(17)


def test_super_asks_about_a_category_of_several_kinds() -> None:
    for i in range(30):
        sample = make_sample("super", i)
        words = set(re.findall(r"\w+", sample.question))
        kinds = {k for k in read_kinds(sample) if k and (k[0] in words or PLURALS[k[1]] in words)}
        assert len(kinds) >= min(2, int(sample.answer))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_balanced(family: str) -> None:
    drawn = Counter(make_sample(family, i).answer for i in range(140))
    options = make_sample(family, 0).options
    expected = 140 / len(options)
    assert set(drawn) == set(options)
    assert sum((n - expected) ** 2 / expected for n in drawn.values()) < 25  # chi-squared, p < 0.001 for 6 degrees


@pytest.mark.parametrize("family", REPLIES)
def test_every_word_of_a_reply_is_drawn(family: str) -> None:
    drawn = [make_sample(family, i).answer.split() for i in range(140)]
    options = [option.split() for option in make_sample(family, 0).options]
    assert [set(words) for words in zip(*drawn, strict=True)] == [set(words) for words in zip(*options, strict=True)]
    numbers = Counter(words[-1] for words in drawn)
    assert sum((n - 20) ** 2 / 20 for n in numbers.values()) < 25  # chi-squared, p < 0.001 for 6 degrees


def test_samples_are_a_function_of_split_seed_family_and_index() -> None:
    def seen(family: str, i: int, split: str = "measuring", seed: int = 0) -> tuple[bytes, str, str]:
        sample = make_sample(family, i, split, seed)
        return sample.image.tobytes(), sample.question, sample.id

    assert seen("super", 3) == seen("super", 3)
    others = [seen("super", 3, "choosing"), seen("super", 3, seed=1), seen("super", 4), seen("super_box", 3)]
    assert len({picture for picture, *_ in [seen("super", 3), *others]}) == 5
    assert len({id for *_, id in [seen("super", 3), *others]}) == 5


def test_no_picture_is_in_both_splits() -> None:
    train = {make_sample(f, i, "choosing").image.tobytes() for f in (*FAMILIES, *REPLIES) for i in range(60)}
    held_out = {make_sample(f, i, "measuring").image.tobytes() for f in (*FAMILIES, *REPLIES) for i in range(60)}
    assert len(train) == len(held_out) == 60 * len((*FAMILIES, *REPLIES))
    assert not train & held_out


def test_samples_take_the_families_in_turn() -> None:
    three = ("object", "yes_no", "general")
    drawn = list(islice(samples(7, three, seed=2), 10))
    assert [s.family for s in drawn] == [three[i % 3] for i in range(7)]
    assert [s.id for s in drawn] == [make_sample(three[i % 3], i // 3, seed=2).id for i in range(7)]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown question family 'objects'"):
        make_sample("objects", 0)
    with pytest.raises(ValueError, match="unknown split 'test'"):
        make_sample("object", 0, "test")
    with pytest.raises(ValueError, match="negative"):
        make_sample("object", -1)
    with pytest.raises(ValueError, match="no question family"):
        next(samples(1, ()))


def test_scenes_can_always_be_asked_about() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene: Scene = make_scene(rng)
        per_kind = scene.counts[scene.counts > 0]
        assert per_kind.max() <= 7
        assert 2 <= len(per_kind) <= 7
        assert (scene.kinds != EMPTY).sum() == per_kind.sum()
        totals = np.concatenate([scene.counts.sum(0), scene.counts.sum(1)])
        assert ((totals > 0) & (totals <= 7)).any()


def test_words_are_all_there_and_single() -> None:
    assert len(set(WORDS)) == len(WORDS)
    for sample in samples(400):
        assert set(re.findall(r"\w+|[^\w\s]+", f"{sample.question} {sample.answer}")) <= set(WORDS)


def test_the_world_needs_no_torch() -> None:
    code = (
        "import sys, calibrate.datasets.synthetic; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
