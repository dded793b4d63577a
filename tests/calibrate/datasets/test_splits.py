"""The halves of a dataset: disjoint, together everything, and the same whatever else a file holds."""

import base64
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published_datasets import POLL, as_lines

from calibrate.datasets import DATASETS, open_dataset
from calibrate.datasets.splits import ALL, CHOOSING, FEWEST, MEASURING, SPLITS
from calibrate.errors import SamplesTooFew, SplitUnknown
from profiles.errors import WrongValue
from profiles.head_profile import DatasetRef
from profiles.overlap import Overlap, overlap, shared_pictures
from profiles.picture_digests import packed, unpacked

PICTURES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures that all differ, `0.png` and so on, and a copy of each under another name, `copy0.png`."""
    made = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES):
        for name in (f"{number}.png", f"copy{number}.png"):
            Image.fromarray(np.full((4, 6, 3), 20 * number, np.uint8)).save(made / name)
    return made


def record(name, number=0, **fields):
    return {"image": name, "question": f"How many? {number}", "answer": "2", "id": f"{name}:{number}", **fields}


def written(folder, records, name="set.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def opened(path, split, samples=1000, **options):
    return open_dataset(str(path), samples=samples, seed=0, split=split, **options)


def ids(path, split, **options):
    return {one.id for one in opened(path, split, **options)}


def picture_of(name):
    return name.split(":")[0].removeprefix("copy")


def taken(dataset):
    return dataset.ref(), [(one.id, one.question, one.answer) for one in dataset]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("samples", [4, 1000])
def test_other_samples_of_an_open_dataset_are_those_of_one_opened_for_them(folder, split, samples):
    path = written(folder, [record(f"{number}.png", turn) for number in range(PICTURES) for turn in range(2)])
    made = open_dataset("synthetic", samples=9, seed=2, split=CHOOSING, families=["object"])
    again = made.retaken(samples=min(samples, 20), split=split)
    fresh = open_dataset("synthetic", samples=min(samples, 20), seed=2, split=split, families=["object"])
    assert taken(again) == taken(fresh)
    first = opened(path, CHOOSING, samples=3)
    before = taken(first)
    path.unlink()
    again = first.retaken(samples=samples, split=split)
    assert taken(first) == before
    written(folder, [record(f"{number}.png", turn) for number in range(PICTURES) for turn in range(2)])
    assert taken(again) == taken(opened(path, split, samples=samples))


def test_what_was_said_of_an_open_dataset_is_not_said_again(folder):
    path = written(folder, [record("0.png", number) for number in range(6)], "small.jsonl")
    first = opened(path, CHOOSING)
    assert len(first.notes) == 1
    assert first.retaken(samples=3, split=MEASURING).notes == []


several = st.lists(
    st.tuples(st.integers(0, PICTURES - 1), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30, unique=True
)


@settings(max_examples=25, deadline=None)
@given(asked=several, more=several, seed=st.integers(0, 2**16))
def test_halves_are_disjoint_and_stay_what_they_are(folder, asked, more, seed):
    """Shuffling, growing, rewording and renaming move no picture from one half into the other."""
    records = [record(f"{'copy' if copied else ''}{picture}.png", number) for picture, copied, number in asked]
    path = written(folder, records)
    halves = {split: ids(path, split) for split in (CHOOSING, MEASURING)}
    assert ids(path, ALL) == {one["id"] for one in records}
    if opened(path, CHOOSING).ref().split == ALL:  # too small to be divided
        assert halves[CHOOSING] == halves[MEASURING] == ids(path, ALL)
        return
    assert all(len(half) >= FEWEST for half in halves.values())
    assert halves[CHOOSING] | halves[MEASURING] == ids(path, ALL)
    assert {picture_of(one) for one in halves[CHOOSING]}.isdisjoint(picture_of(one) for one in halves[MEASURING])
    refs = [opened(path, split).ref() for split in (CHOOSING, MEASURING)]
    assert overlap(*refs).shared == 0

    added = [record(f"{picture}.png", 10 + number, question="What?") for picture, _, number in more]
    grown = [*records, *{one["id"]: one for one in added}.values()]
    random.Random(seed).shuffle(grown)
    path = written(folder, grown)
    for split, half in halves.items():
        assert half <= ids(path, split)
        assert len(ids(path, split, samples=2)) <= 2
        assert ids(path, split, samples=2) <= ids(path, split)


@pytest.mark.parametrize("name", DATASETS)
def test_halves_of_what_is_made_on_the_spot(name):
    refs = {split: open_dataset(name, samples=32, seed=0, split=split).ref() for split in SPLITS}
    assert overlap(refs[CHOOSING], refs[MEASURING]).shared == 0
    assert overlap(refs[CHOOSING], refs[ALL]).shared == overlap(refs[MEASURING], refs[ALL]).shared == 16
    seen = {
        split: {one.image.tobytes() for one in open_dataset(name, samples=32, seed=0, split=split)} for split in refs
    }
    assert not seen[CHOOSING] & seen[MEASURING]
    assert open_dataset(name, samples=4, seed=0).ref().split == MEASURING


def test_a_dataset_too_small_is_taken_whole_and_says_so(folder):
    path = written(folder, [record("1.png", number) for number in range(5)])
    for split in (CHOOSING, MEASURING):
        dataset = opened(path, split)
        assert (len(dataset), dataset.ref().split) == (5, ALL)
        assert dataset.notes == [
            "dataset set.jsonl is too small to be divided by its pictures: one half would have fewer than 2 samples; "
            "all of it is taken, to choose heads by and to measure on alike"
        ]
    assert opened(path, ALL).notes == []


def test_a_picture_is_the_same_by_its_file_and_in_base64(folder, tmp_path):
    """Splits and overlaps go by what a file holds, not by where it stands."""
    columns = ("index", "question", "hint", "A", "B", "C", "D", "answer", "l2-category", "image")
    encoded = [base64.b64encode((folder / f"{number}.png").read_bytes()).decode() for number in range(PICTURES)]
    rows = [
        (str(number), "Which?", "", "x", "y", "", "", "A", "coarse", picture) for number, picture in enumerate(encoded)
    ]
    (tmp_path / "mmbench_dev_x.tsv").write_text("".join("\t".join(row) + "\n" for row in (columns, *rows)))
    path = written(folder, [record(f"{number}.png") for number in range(PICTURES)])
    for split in SPLITS:
        theirs = open_dataset(f"mmbench:{tmp_path}", samples=100, seed=0, split=split).ref()
        ours = opened(path, split).ref()
        assert theirs.pictures == ours.pictures
        assert (theirs.settings["published_split"], theirs.split) == ("dev", split)


def test_a_published_split_is_taken_whole_and_others_in_halves(folder, tmp_path):
    for number in range(PICTURES):
        (tmp_path / f"{number}.jpg").write_bytes((folder / f"{number}.png").read_bytes())
    for family in ("random", "popular"):  # the same pictures, asked about other objects
        lines = [POLL | {"question_id": number, "image": f"{number}.jpg", "label": "no"} for number in range(PICTURES)]
        as_lines(tmp_path / f"coco_pope_{family}.json", lines)
    by_family = {
        split: [
            open_dataset(f"pope:{tmp_path}/coco_pope_{family}.json", samples=100, seed=0, split=split).ref()
            for family in ("random", "popular")
        ]
        for split in SPLITS
    }
    assert shared_pictures(by_family[CHOOSING][0], by_family[MEASURING][1]) == 0
    assert shared_pictures(by_family[ALL][0], by_family[ALL][1]) == PICTURES
    with pytest.raises(SplitUnknown, match="no split 'test'; expected one of choosing, measuring, all"):
        open_dataset(f"pope:{tmp_path}", samples=1, seed=0, split="test")


def test_a_half_without_a_question_of_the_families(folder):
    asked = [record(f"{number}.png") for number in range(PICTURES)]
    one = next(iter(opened(written(folder, asked), CHOOSING))).id
    path = written(folder, [line | {"family": "rare" if line["id"] == one else "usual"} for line in asked])
    with pytest.raises(SamplesTooFew, match="no question of these families in its half 'measuring'"):
        opened(path, MEASURING, families=["rare"])


def test_pictures_that_are_gone_belong_to_a_half_too(folder):
    path = written(folder, [record(f"gone{number}.png") for number in range(40)])
    assert len(opened(path, CHOOSING)) + len(opened(path, MEASURING)) == 40


def test_digests_in_one_text():
    digests = [bytes([number]) * 32 for number in (7, 3, 7)]
    assert unpacked(packed(digests)) == {b"\x03" * 6, b"\x07" * 6}
    for text in ("AAAA", "?", packed([b"b" * 6]) + packed([b"a" * 6])):
        with pytest.raises(ValueError, match=r"."):
            unpacked(text)
        with pytest.raises(ValueError, match=WrongValue.__name__):
            DatasetRef(name="x", digest=None, split=None, settings={"pictures": text})
    bare = DatasetRef(name="x", digest=None, split=None, settings={})
    known = DatasetRef(name="x", digest=None, split=None, settings={"pictures": packed(digests)})
    assert overlap(bare, known) is overlap(None, known) is None
    assert overlap(known, known) == Overlap(2, 2)
    assert "2 of the 2 pictures that are measured on (profile p.json)" in Overlap(2, 2).line("profile p.json")
    assert Overlap(0, 2).line("p") is None
