"""Published datasets: every reader on files in its official format, and what it says of records that do not fit."""

import builtins
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_datasets import LOOKS, MAKERS, POLL, VIP, as_json, as_lines, mmbench, mmbench_rows, picture, pope
from published_datasets import pointqa as make_pointqa
from published_datasets import seed_bench as make_seed
from published_datasets import vip_pointqa as make_vip

from calibrate.datasets import BENCHMARKS, open_dataset
from calibrate.datasets.metrics import METRICS
from calibrate.errors import (
    DatasetBroken,
    DatasetLibraryMissing,
    DatasetOffline,
    DatasetUnknown,
    FamilyUnknown,
    SamplesTooFew,
    SplitUnknown,
)
from profiles.errors import FileUnreadable

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def opened(name, path, samples=1000, seed=0, **options):
    return open_dataset(f"{name}:{path}", samples=samples, seed=seed, **options)


@pytest.fixture(params=sorted(BENCHMARKS))
def made(request, tmp_path):
    """Name of a benchmark, and a folder in its format; a new one without a maker fails here."""
    return request.param, MAKERS[request.param](tmp_path / "data")


def test_every_reader_yields_whole_samples_again_and_again(made):
    name, folder = made
    dataset = opened(name, folder)
    first, again = list(dataset), list(dataset)
    assert len(first) == len(dataset) >= 4
    assert dataset.broken == []
    assert dataset.name == name
    assert dataset.metric in METRICS
    assert len({one.id for one in first}) == len(first)
    assert all(one.id.startswith(f"{name}:") for one in first)
    assert [(one.id, one.question, one.image.tobytes()) for one in first] == [
        (one.id, one.question, one.image.tobytes()) for one in again
    ]
    for one in first:
        assert one.answer in one.options
        assert one.image.mode == "RGB"
        assert one.question.strip()
        assert (one.box is None) == (name != "pointqa")
        assert (one.group is None) == (name != "mmbench-circular")
    families = sorted({one.family for one in first})
    assert {one.family for one in opened(name, folder, families=families[:1])} == set(families[:1])
    assert all(re.fullmatch("[a-z0-9_]+", family) for family in families)
    with pytest.raises(FamilyUnknown, match="colour"):
        opened(name, folder, families=["colour"])


def test_ref_names_the_files_and_no_folder(made):
    name, folder = made
    ref = opened(name, folder).ref()
    assert str(folder) not in ref.model_dump_json()
    assert ref.settings["source"]
    assert ref == opened(name, folder).ref()
    for file in folder.glob("*.json"):
        file.write_bytes(file.read_bytes() + b"\n")
    for file in folder.glob("*.tsv"):
        file.write_bytes(file.read_bytes().replace(b"Left or right?", b"Right or left?"))
    assert opened(name, folder).ref().digest != ref.digest


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


def test_pointqa_in_six_settings(tmp_path):
    dataset = opened("pointqa", make_pointqa(tmp_path))
    samples = {one.id: one for one in dataset}
    assert len(samples) == 4 * 6
    assert dataset.ref().split == "test"
    plain, drawn = samples["pointqa:31:1:object"], samples["pointqa:31:1:object_box"]
    assert plain.question == "How many dogs are there?" + WORD
    assert drawn.question == "How many dogs are there? The exemplary object is within the rectangle." + WORD
    assert samples["pointqa:31:1:super"].question.startswith("How many of these beings are there?")
    assert samples["pointqa:31:1:general_box"].question.startswith("How many of these are there? The exemplary")
    assert (plain.answer, plain.options, plain.box) == ("3", tuple("1234567"), (8.0, 6.0, 20.0, 16.0))
    changed = np.any(np.asarray(plain.image) != np.asarray(drawn.image), axis=2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (8, 6, 20, 16)
    assert not changed[7:16, 9:20].any()
    assert tuple(np.asarray(drawn.image)[6, 8]) == (143, 80, 30)  # half of the red, half of what is below
    assert [one.id.split(":")[1] for one in opened("pointqa", tmp_path, split="train")] == ["150"] * 6


def test_pointqa_families_of_a_record_come_together(tmp_path):
    for seed in range(5):
        ids = [one.id.rsplit(":", 1)[0] for one in opened("pointqa", make_pointqa(tmp_path), samples=17, seed=seed)]
        assert sorted(ids.count(one) for one in set(ids)) == [6, 6]
    with pytest.raises(SamplesTooFew, match="5 samples of dataset pointqa"):
        opened("pointqa", tmp_path, samples=5)
    assert len(opened("pointqa", tmp_path, samples=1, families=["general"])) == 1


def test_pointqa_as_vip_llava_has_it(tmp_path):
    dataset = opened("pointqa", make_vip(tmp_path))
    one = next(iter(dataset))
    assert len(dataset) == 24
    assert (one.id, one.answer, one.box) == ("pointqa:2414753:0:general", "2", (8.0, 6.0, 20.0, 16.0))
    assert len(opened("pointqa", tmp_path / "pointQA_twice_test.json")) == 24


def test_a_box_is_cut_at_the_picture_and_must_be_on_it(tmp_path):
    over = {"bbox": {"x": -3, "y": 20, "w": 400, "h": 30}}
    boxes = {one.id: one.box for one in opened("pointqa", make_pointqa(tmp_path, over))}
    assert boxes["pointqa:31:1:general"] == (0.0, 20.0, 48.0, 32.0)
    beside = opened("pointqa", make_pointqa(tmp_path, {"bbox": {"x": 48, "y": 0, "w": 4, "h": 4}}))
    with pytest.raises(DatasetBroken, match=r"image 31, question 1: image 31\.jpg ends before the box"):
        list(beside)


def test_mmbench_once_and_in_circles(tmp_path):
    once = list(opened("mmbench", mmbench(tmp_path)))
    assert [one.id for one in once] == ["mmbench:241", "mmbench:252", "mmbench:253", "mmbench:254"]
    assert once[0].question == 'Which "place"\nis this?\nA. beach\nB. wood\nC. road\nD. roof' + LETTER
    assert once[1].question == "A hint.\nLeft or right?\nA. left\nB. right" + LETTER
    assert [one.options for one in once] == [tuple("ABCD"), tuple("AB"), tuple("ABC"), tuple("ABCD")]
    assert [one.answer for one in once] == ["C", "B", "A", "D"]
    assert once[1].family == "finegrained_perception_instance_level"
    assert once[1].image.tobytes() == once[0].image.tobytes() != once[2].image.tobytes()

    circles = list(opened("mmbench-circular", tmp_path))
    assert [one.group for one in circles] == [one.id.replace(":", "-circular:") for one in once for _ in one.options]
    first = circles[:4]
    assert [one.answer for one in first] == ["C", "B", "A", "D"]
    assert first[1].question.endswith("A. wood\nB. road\nC. roof\nD. beach" + LETTER)
    published = mmbench_rows()[-1]
    assert all(f"\n{letter}. {published[letter]}\n" in first[1].question for letter in "ABCD")
    assert first[1].answer == published["answer"]
    for one in circles:  # whichever way they are turned, the answer's letter stands before the right option
        right = {"241": "road", "252": "right", "253": "1", "254": "4"}[one.id.split(":")[1]]
        assert f"\n{one.answer}. {right}\n" in one.question
    for seed in range(4):
        drawn = opened("mmbench-circular", tmp_path, samples=7, seed=seed)
        groups = [one.group for one in drawn]
        assert 0 < len(groups) <= 7
        assert all(groups.count(name) == sum(one.group == name for one in circles) for name in groups)


def test_pope_asks_all_three_files(tmp_path):
    dataset = opened("pope", pope(tmp_path))
    samples = list(dataset)
    assert [one.family for one in samples] == ["adversarial"] * 4 + ["popular"] * 4 + ["random"] * 4
    assert samples[0].question == "Is there a person in the image?" + WORD
    assert [one.answer for one in samples[:4]] == ["yes", "no"] * 2
    assert samples[0].options == ("yes", "no")
    one = opened("pope", tmp_path / "coco_pope_random.json")
    assert {sample.family for sample in one} == {"random"}
    assert one.ref().settings["source"] == "coco_pope_random.json"
    (tmp_path / "coco_pope_random.json").rename(tmp_path / "mine.json")
    with pytest.raises(DatasetUnknown, match="says no family"):
        opened("pope", tmp_path / "mine.json")


def test_pope_files_in_a_subfolder_with_images_beside_it(tmp_path):
    pope(tmp_path / "coco")
    (tmp_path / "coco" / "val2014").rename(tmp_path / "val2014")
    assert len(list(opened("pope", tmp_path))) == 12


def test_seed_bench_leaves_videos_out(tmp_path):
    samples = list(opened("seed-bench", make_seed(tmp_path)))
    assert [one.family for one in samples] == [
        "scene_understanding",
        "instance_identity",
        "instance_attributes",
        "instance_location",
    ]
    text = "How many towels are in the image?\nA. One\nB. Two\nC. Three\nD. Four" + LETTER
    assert (samples[0].question, samples[0].answer) == (text, "B")


def test_q_bench_in_llava_s_words(tmp_path):
    samples = list(opened("q-bench", MAKERS["q-bench"](tmp_path)))
    told = "Is this picture clear?\nChoose between one of the options as follows:\nA. Yes\nB. No\n"
    assert (samples[0].question, samples[0].answer, samples[0].options) == (told, "B", ("A", "B"))
    assert (samples[2].answer, samples[2].options) == ("C", ("A", "B", "C"))
    assert [one.family for one in samples] == ["distortion", "others", "in_context_distortion", "in_context_others"]
    assert samples[3].id == "q-bench:llvisionqa_dev:3"


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


def test_files_that_are_none(made, tmp_path):
    name, folder = made
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
    if kind.SPLITS:
        with pytest.raises(FileUnreadable):
            opened(name, folder, split=kind.SPLITS[1])


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
    with pytest.raises(DatasetUnknown, match=r"synthetic, a \.jsonl file, or pointqa\|mmbench"):
        open_dataset("pop:/data", samples=1, seed=0)


def test_without_the_library_a_hub_id_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refusing(name, *rest, **named):
        if name == "datasets":
            raise ModuleNotFoundError("No module named 'datasets'")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(DatasetLibraryMissing, match=r"pip install 'vhserve\[datasets\]'"):
        open_dataset("pope:lmms-lab/POPE", samples=1, seed=0)
    with pytest.raises(DatasetUnknown, match="not on the Hub with its pictures"):
        open_dataset("pointqa:mucai/ViP-LLaVA-Instruct", samples=1, seed=0)


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("datasets")


def hub_rows():
    """Rows as the Hub has them, with the names of columns that differ from the files'."""
    image = Image.new("RGB", (48, 32), (200, 30, 30))
    choices = dict.fromkeys(("choice_a", "choice_b", "choice_c", "choice_d"), "x") | {"answer": "D"}
    mm = [{**row, "index": str(row["index"]), "L2-category": row["l2-category"]} for row in mmbench_rows()]
    for row in mm:
        del row["l2-category"]
    options = {"option0": "Yes", "option1": "No", "option2": "N/A", "option3": "N/A", "correct_choice": "B"}
    return {
        "pope": [
            {"question_id": str(i), "question": "Is it?", "answer": "no", "category": "popular", "image": image}
            for i in range(3)
        ],
        "seed-bench": [
            {**choices, "question": "?", "question_id": str(i), "question_type_id": 1, "data_type": "image"}
            | {"image": [image, image]}
            for i in range(3)
        ],
        "q-bench": [
            {"id": i, "question": "?", **options, "question_type": 0, "question_concern": 3, "image": image}
            for i in range(3)
        ],
        "mmbench": [{**row, "image": image} for row in mm],
        "mmbench-circular": [{**row, "image": image} for row in mm],
    }


@pytest.mark.parametrize("name", sorted(name for name, kind in BENCHMARKS.items() if kind.HUB))
@pytest.mark.parametrize("how", ["dictionary", "one", "parquet"])
def test_rows_as_on_the_hub_from_a_local_folder(tmp_path, library, name, how):
    rows, split, folder = hub_rows()[name], BENCHMARKS[name].HUB_SPLIT, tmp_path / "saved"
    table = library.Dataset.from_list(rows)
    if how == "dictionary":
        library.DatasetDict({split: table}).save_to_disk(str(folder))
        with pytest.raises(SplitUnknown, match="middle"):
            opened(name, folder, split="middle")
    elif how == "one":
        table.save_to_disk(str(folder))
    else:
        (folder / "data").mkdir(parents=True)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    dataset = opened(name, folder)
    samples = list(dataset)
    assert len(samples) == {"mmbench": 4, "mmbench-circular": 13}.get(name, 3)
    assert all(one.image.getpixel((3, 3)) == (200, 30, 30) for one in samples)
    assert samples[0].answer == {"pope": "no", "seed-bench": "D", "q-bench": "B"}.get(name, "C")
    assert dataset.ref() == opened(name, folder).ref()
    assert dataset.ref().split == split


def test_offline_says_so(library, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DatasetOffline, match=r"docs/datasets\.md"):
        open_dataset("pope:lmms-lab/POPE", samples=1, seed=0)


def test_the_page_names_every_reader_its_folders_and_its_hub_id():
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `") and row.count("|") == 7}
    assert set(rows) == set(BENCHMARKS)
    for name, kind in BENCHMARKS.items():
        assert rows[name].count("the same") == 4 or all(f"`{part}`" in rows[name] for part in kind.PICTURES)
        assert kind.HUB is None or f"`{kind.HUB}`" in page
