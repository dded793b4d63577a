"""What the readers of published datasets say of files, records and pictures that do not fit."""

import re

import pytest
from published_datasets import LOOKS, MAKERS, POLL, VIP, as_json, as_lines, mmbench, opened, picture
from published_datasets import pointqa as make_pointqa
from published_datasets import vip_pointqa as make_vip

from calibrate.datasets import BENCHMARKS, open_dataset
from calibrate.errors import DatasetBroken, DatasetUnknown, SplitUnknown
from profiles.errors import FileUnreadable

MISFITS = [
    ("pointqa", {"ans": "8"}, "image 31, question 1", "'ans' is \"8\""),
    ("pointqa", {"bbox": None}, "image 31, question 1", "'bbox' is null"),
    ("pointqa", {"bbox": {"x": 1, "y": 1, "w": 0, "h": 4}}, "image 31, question 1", "'bbox'"),
    ("pointqa", {"super_question": ""}, "image 31, question 1", "'super_question'"),
    ("mmbench", {"answer": "C"}, "row 2", "'answer' is \"C\""),
    ("mmbench", {"answer": ""}, "row 2", "not published"),
    ("mmbench", {"index": "x"}, "row 2", "'index'"),
    ("mmbench", {"B": "nan"}, "row 2", "has 1 options"),
    ("mmbench", {"question": " "}, "row 2", "'question'"),
    ("mmbench", {"index": 241}, "row 2", "is that of row 1 too"),
    ("mmbench-circular", {"l2-category": ""}, "row 2", "'l2-category'"),
    ("pope", {"label": "maybe"}, "line 2", "'label' is \"maybe\""),
    ("pope", {"text": None}, "line 2", "'text' is null"),
    ("pope", {"question_id": True}, "line 2", "'question_id' is true"),
    ("pope", {"image": 3}, "line 2", "'image' is 3"),
    ("seed-bench", {"answer": "E"}, "question 1", "'answer' is \"E\""),
    ("seed-bench", {"choice_c": None}, "question 1", "'choice_c'"),
    ("seed-bench", {"data_type": "Single Image"}, "question 1", "'data_type'"),
    ("seed-bench", {"question_type_id": 12}, "question 1", "'question_type_id' is 12"),
    ("q-bench", {"correct_ans": "Maybe"}, "record 1", "'correct_ans' is \"Maybe\""),
    ("q-bench", {"candidates": "Yes"}, "record 1", "'candidates'"),
    ("q-bench", {"candidates": ["No"]}, "record 1", "has 1 options"),
    ("q-bench", {"concern": 4}, "record 1", "'concern' is 4"),
    ("q-bench", {"img_path": ""}, "record 1", "'img_path'"),
]


@pytest.mark.parametrize(("name", "change", "place", "said"), MISFITS)
def test_a_record_that_does_not_fit_is_named(tmp_path, name, change, place, said):
    with pytest.raises(DatasetBroken) as caught:
        opened(name, MAKERS[name](tmp_path, change))
    text = str(caught.value)
    assert re.search(rf"{tmp_path}/\S+\.(json|tsv): {place}: ", text), text
    assert said in text
    assert "\n" not in text


def test_every_reader_has_misfits():
    assert {name for name, *_ in MISFITS} == set(BENCHMARKS)


def test_vip_llava_s_misfits(tmp_path):
    for change, said in (({"bboxes": []}, "'bboxes'"), ({"bboxes": [[1, 1, 1, 4]]}, "'bboxes'"), ({"answer": 0}, "0")):
        with pytest.raises(DatasetBroken, match="record 3") as caught:
            opened("pointqa", make_vip(tmp_path, change))
        assert said in str(caught.value)


def test_a_field_that_is_not_there(tmp_path):
    records = [{key: value for key, value in VIP.items() if key != "general_question"}]
    as_json(tmp_path / "pointQA_twice_test.json", records)
    with pytest.raises(DatasetBroken, match="record 0: field 'general_question' is missing"):
        opened("pointqa", tmp_path)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_files_that_are_none(name, tmp_path):
    folder = MAKERS[name](tmp_path / "data")
    kind = BENCHMARKS[name]
    for file in [*folder.glob("*pope_random.json"), folder / "llvisionqa_dev.json", *folder.glob("*.tsv")]:
        if file.exists():
            file.write_bytes(b"\xff\x00{")
            with pytest.raises(DatasetBroken, match=file.name):
                opened(name, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileUnreadable, match=f"no file of {name}"):
        opened(name, tmp_path / "empty")
    with pytest.raises(FileUnreadable, match="no such file"):
        opened(name, tmp_path / "gone")
    with pytest.raises(SplitUnknown, match="middle"):
        opened(name, folder, split="middle")
    with pytest.raises(DatasetUnknown, match=f"{name}:PATH"):
        open_dataset(name, samples=1, seed=0)
    if kind.PUBLISHED:
        with pytest.raises(FileUnreadable):
            opened(name, folder, split=kind.PUBLISHED[1])


def test_documents_that_are_something_else(tmp_path):
    (tmp_path / "SEED-Bench.json").write_text("[]")
    with pytest.raises(DatasetBroken, match="no field 'questions'"):
        opened("seed-bench", tmp_path)
    (tmp_path / "llvisionqa_dev.json").write_text("{}")
    with pytest.raises(DatasetBroken, match="records are a JSON dict"):
        opened("q-bench", tmp_path)
    (tmp_path / "llvisionqa_dev.json").write_text("[3]")
    with pytest.raises(DatasetBroken, match="record 0: is a JSON int"):
        opened("q-bench", tmp_path)
    (tmp_path / "llvisionqa_dev.json").write_text("[]")
    with pytest.raises(DatasetBroken, match="has no question"):
        opened("q-bench", tmp_path)
    (tmp_path / "mmbench_dev_x.tsv").write_text("index\tquestion\n1\n")
    with pytest.raises(DatasetBroken, match="row 1: has 1 cells; expected 2"):
        opened("mmbench", tmp_path)
    (tmp_path / "mmbench_dev_y.tsv").write_text("")
    with pytest.raises(DatasetUnknown, match=r"mmbench_dev_x\.tsv, mmbench_dev_y\.tsv"):
        opened("mmbench", tmp_path)
    as_json(tmp_path / "looktwiceqa_dataset.json", {"1": [LOOKS]})
    as_json(tmp_path / "looktwiceqa_test_imgs.json", ["2"])
    with pytest.raises(DatasetBroken, match=r"image 2 is not in looktwiceqa_dataset\.json"):
        opened("pointqa", tmp_path)


def test_pictures_in_cells_may_be_broken_too(tmp_path):
    for cell, said in (("", "is missing"), ("999", "is missing"), ("?" * 80, "cannot be decoded")):
        with pytest.raises(DatasetBroken, match=f"row 2: image of index 252 {said}"):
            list(opened("mmbench", mmbench(tmp_path, {"image": cell})))


def test_unknown_names_say_which_there_are():
    with pytest.raises(DatasetUnknown, match=r"synthetic, a \.jsonl, \.csv or \.parquet file, or pointqa\|mmbench"):
        open_dataset("pop:/data", samples=1, seed=0)


def test_a_missing_image_is_listed_counted_and_skipped_up_to_one_per_cent(tmp_path):
    records = [POLL | {"question_id": i, "label": "no"} for i in range(396)]
    gone = [POLL | {"question_id": 1000 + i, "label": "no", "image": "gone.jpg"} for i in range(4)]
    picture(tmp_path / POLL["image"])
    as_lines(tmp_path / "coco_pope_random.json", records[:100] + gone + records[100:])
    dataset = opened("pope", tmp_path)
    assert len(list(dataset)) == 396
    assert dataset.broken[0] == "line 101: image gone.jpg is missing"
    assert len(dataset.broken) == 4
    as_lines(tmp_path / "coco_pope_popular.json", gone[:1])
    dataset = opened("pope", tmp_path)
    with pytest.raises(DatasetBroken, match=r"coco_pope_(random|popular)\.json: line \d+: image gone\.jpg"):
        list(dataset)


def test_a_box_is_cut_at_the_picture_and_must_be_on_it(tmp_path):
    over = {"bbox": {"x": -3, "y": 20, "w": 400, "h": 30}}
    boxes = {one.id: one.box for one in opened("pointqa", make_pointqa(tmp_path, over))}
    assert boxes["pointqa:31:1:general"] == (0.0, 20.0, 48.0, 32.0)
    beside = opened("pointqa", make_pointqa(tmp_path, {"bbox": {"x": 48, "y": 0, "w": 4, "h": 4}}))
    with pytest.raises(DatasetBroken, match=r"image 31, question 1: image 31\.jpg ends before the box"):
        list(beside)
