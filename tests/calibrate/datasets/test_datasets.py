"""Datasets: the synthetic one, JSON lines with every defect named, and broken images counted."""

import hashlib
import json
from itertools import islice

import pytest
from PIL import Image

from calibrate.datasets import DATASETS, open_dataset
from calibrate.datasets.synthetic import FAMILIES
from calibrate.datasets.synthetic.dataset import WORLD
from calibrate.errors import DatasetBroken, DatasetUnknown, FamilyUnknown, SplitUnknown
from profiles.errors import FileUnreadable

GOOD = {"image": "a.png", "question": "How many?", "answer": "2"}


def written(folder, lines, images=("a.png",)):
    for name in images:
        Image.new("RGB", (20, 10), (200, 30, 30)).save(folder / name)
    path = folder / "set.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def opened(path, samples=1000, seed=0, split="all", **options):
    return open_dataset(str(path), samples=samples, seed=seed, split=split, **options)


@pytest.mark.parametrize("name", DATASETS)
def test_built_in_datasets_are_repeatable(name):
    dataset = open_dataset(name, samples=20, seed=3)
    first, again = list(dataset), list(dataset)
    assert len(first) == len(dataset) == 20
    assert [one.id for one in first] == [one.id for one in again]
    assert len({one.id for one in first}) == 20
    assert all(one.image.tobytes() == other.image.tobytes() for one, other in zip(first, again, strict=True))
    assert all(one.answer in one.options and one.image.mode == "RGB" for one in first)
    assert {one.id for one in open_dataset(name, samples=20, seed=4)}.isdisjoint(one.id for one in first)
    assert open_dataset(name, samples=20, seed=4).ref() != dataset.ref()
    assert dataset.broken == []


def test_synthetic_families_splits_and_ref():
    dataset = open_dataset("synthetic", samples=6, seed=5, split="choosing", families=["yes_no", "object"])
    assert [one.family for one in dataset] == ["object", "yes_no"] * 3
    assert dataset.ref().split == "choosing"
    assert dataset.ref().described() == {"world": WORLD, "samples": 6, "seed": 5, "families": "object,yes_no"}
    assert open_dataset("synthetic", samples=8, seed=0).ref().split == "measuring"
    assert [one.family for one in open_dataset("synthetic", samples=8, seed=0)] == list(FAMILIES)
    with pytest.raises(FamilyUnknown, match="colour"):
        open_dataset("synthetic", samples=1, seed=0, families=["colour"])
    with pytest.raises(FamilyUnknown):
        open_dataset("synthetic", samples=1, seed=0, families=[])
    with pytest.raises(SplitUnknown, match="test"):
        open_dataset("synthetic", samples=1, seed=0, split="test")


def test_the_world_is_the_one_its_version_says():
    """Raise `WORLD` when this changes: profiles and results name samples by version and seed."""
    told = hashlib.sha256()
    for one in open_dataset("synthetic", samples=64, seed=0):
        told.update(repr((one.id, one.question, one.answer, one.options, one.box)).encode() + one.image.tobytes())
    assert (WORLD, told.hexdigest()[:16]) == (1, "48b1b9c59547a144")


def test_json_lines_round_trip(tmp_path):
    path = written(
        tmp_path,
        [
            GOOD,
            "",
            GOOD | {"answer": "3", "family": "all"},
            GOOD | {"answer": " yes ", "family": "pope", "options": ["yes", "no"], "box": [1, 2, 3.5, 4], "id": "x"},
        ],
    )
    one, two, three = opened(path)
    assert (one.id, one.family, one.options, one.box) == ("set.jsonl:1", "all", ("2", "3"), None)
    assert (two.id, two.answer) == ("set.jsonl:3", "3")
    assert (three.id, three.answer, three.options, three.box) == ("x", "yes", ("yes", "no"), (1.0, 2.0, 3.5, 4.0))
    assert one.image.size == (20, 10)
    ref = opened(path).ref()
    assert ref.name == "set.jsonl"
    assert ref.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert [sample.id for sample in opened(path, families=["pope"])] == ["x"]


def test_fewer_samples_are_drawn_by_seed_in_file_order(tmp_path):
    path = written(tmp_path, [GOOD | {"id": f"{i:03}"} for i in range(50)])
    drawn = [one.id for one in opened(path, samples=10, seed=1)]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert drawn == [one.id for one in opened(path, samples=10, seed=1)]
    assert drawn != [one.id for one in opened(path, samples=10, seed=2)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("\x00", "is not JSON"),
        ("[1]", "JSON list"),
        (GOOD | {"boxes": 1}, "'boxes'"),
        ({key: GOOD[key] for key in ("image", "answer")}, "'question' is missing"),
        (GOOD | {"question": " "}, "'question'"),
        (GOOD | {"answer": 2}, "'answer' is 2"),
        (GOOD | {"image": None}, "'image' is null"),
        (GOOD | {"family": ""}, "'family'"),
        (GOOD | {"options": "2"}, "'options'"),
        (GOOD | {"options": ["3", "4"]}, "'answer'"),
        (GOOD | {"box": [0, 0, 1]}, "'box'"),
        (GOOD | {"box": [0, 0, 0, 4]}, "'box'"),
        (GOOD | {"box": [0, 0, "1", 4]}, "'box'"),
        (GOOD | {"box": [0, 0, float("nan"), 4]}, "'box'"),
        (GOOD | {"id": "set.jsonl:1"}, "line 1"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, said):
    with pytest.raises(DatasetBroken) as caught:
        opened(written(tmp_path, [GOOD, line]))
    assert "set.jsonl: line 2: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileUnreadable):
        opened(tmp_path / "gone.jsonl")
    with pytest.raises(DatasetBroken, match="no line"):
        opened(written(tmp_path, [""]))
    with pytest.raises(DatasetUnknown, match="synthetic"):
        opened("sythetic")
    path = written(tmp_path, [GOOD])
    with pytest.raises(FamilyUnknown, match="pope"):
        opened(path, families=["pope"])
    with pytest.raises(SplitUnknown):
        opened(path, split="train")


def damaged(folder, count):
    """Every way for an image to be broken, over and over: no file, no image, half an image."""
    whole = folder / "whole.png"
    Image.effect_noise((64, 64), 50).convert("RGB").save(whole)
    (folder / "text.png").write_text("no image")
    (folder / "half.png").write_bytes(whole.read_bytes()[:2000])
    return [GOOD | {"image": ("gone.png", "text.png", "half.png")[i % 3]} for i in range(count)]


def test_broken_images_are_skipped_and_counted(tmp_path):
    lines = [GOOD] * 397
    dataset = opened(written(tmp_path, lines[:100] + damaged(tmp_path, 3) + lines[100:]))
    assert len(dataset) == 400
    for _ in range(2):  # counted anew each time
        assert len(list(dataset)) == 397
        assert len(dataset.broken) == 3
    assert dataset.broken[0] == "line 101: image gone.png is missing"
    assert "line 102: image text.png cannot be decoded" in dataset.broken[1]


def test_more_than_one_per_cent_broken_is_an_error(tmp_path):
    assert len(list(opened(written(tmp_path, [GOOD] * 396 + damaged(tmp_path, 4))))) == 396
    dataset = opened(written(tmp_path, [GOOD] * 395 + damaged(tmp_path, 4)))
    with pytest.raises(DatasetBroken, match=r"4 of 399 images are broken, such as line 396: image gone\.png"):
        list(dataset)
    assert len(list(islice(dataset, 395))) == 395  # what comes before is yielded


PLACED = {
    "<image>\nHow many?": ("How many?", False),
    "<image>How many?": ("How many?", False),
    "How many?\n<image>": ("How many?", True),
    " How many? <image> ": ("How many?", True),
    " How many? ": (" How many? ", False),
    "<Image> How many?": ("<Image> How many?", False),
}


def test_a_placeholder_is_the_place_of_the_picture(tmp_path):
    asked = list(opened(written(tmp_path, [GOOD | {"question": text} for text in PLACED])))
    assert [(one.question, one.picture_last) for one in asked] == list(PLACED.values())


@pytest.mark.parametrize("text", ["How <image> many?", "<image>How many?<image>", "<image>", "<image>\n<image>\nHow?"])
def test_a_placeholder_elsewhere_names_the_record(tmp_path, text):
    with pytest.raises(DatasetBroken, match=r"set\.jsonl: line 2: the question has <image>"):
        opened(written(tmp_path, [GOOD, GOOD | {"question": text}]))
