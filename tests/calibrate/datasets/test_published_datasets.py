"""Published datasets: every reader on files in its official format."""

import re
from pathlib import Path

import numpy as np
import pytest
from published_datasets import MAKERS, as_json, mmbench, mmbench_rows, opened, picture, pope
from published_datasets import pointqa as make_pointqa
from published_datasets import seed_bench as make_seed
from published_datasets import vip_pointqa as make_vip

from calibrate.datasets import BENCHMARKS
from calibrate.datasets.metrics import METRICS
from calibrate.errors import DatasetBroken, DatasetUnknown, FamilyUnknown, SamplesTooFew

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


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


def test_pointqa_in_six_settings(tmp_path):
    dataset = opened("pointqa", make_pointqa(tmp_path))
    samples = {one.id: one for one in dataset}
    assert len(samples) == 4 * 6
    assert dataset.ref().settings["published_split"] == "test"
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


@pytest.mark.parametrize("over", ["gqa", "aokvqa"])
def test_pope_over_other_pictures_is_a_json_array(tmp_path, over):
    picture(tmp_path / "images" / "a.png")
    records = [
        {"question_id": i, "image": "a.png", "text": " Is it? ", "label": ("Yes", "NO")[i % 2]} for i in range(4)
    ]
    for family in ("random", "popular"):
        as_json(tmp_path / "seem" / over / f"{over}_pope_seem_{family}.json", records)
    (tmp_path / "images").rename(tmp_path / "seem" / "images")
    samples = list(opened("pope", tmp_path))
    assert [one.family for one in samples] == ["popular"] * 4 + ["random"] * 4
    assert [one.answer for one in samples[:4]] == ["yes", "no"] * 2
    assert (samples[0].id, samples[0].question) == (f"pope:{over}:popular:0", " Is it? " + WORD)
    as_json(tmp_path / "seem" / over / "coco_pope_random.json", records)
    with pytest.raises(DatasetUnknown, match=f"has files of POPE over {', '.join(sorted(('coco', over)))}"):
        opened("pope", tmp_path)


@pytest.mark.parametrize("third", ["None", "NA", "nan", "N/A", "null", " none "])
@pytest.mark.parametrize("name", ["mmbench", "mmbench-circular"])
def test_mmbench_s_options_may_say_none(tmp_path, name, third):
    first = opened(name, mmbench(tmp_path, {"C": third, "D": "Three"})).read(4 if "circular" in name else 1)
    assert first.question.endswith(f"A. left\nB. right\nC. {third}\nD. Three" + LETTER)
    assert first.options == tuple("ABCD")


def test_mmbench_counts_what_it_leaves_out_and_refuses_gaps(tmp_path):
    dataset = opened("mmbench", mmbench(tmp_path))
    assert dataset.notes == [
        "dataset mmbench: 1 record whose last options are `nan`, read as empty cells",
        "dataset mmbench: 1 record left out: rotations of other questions",
    ]
    with pytest.raises(DatasetBroken, match="row 2: has an empty option before another"):
        opened("mmbench", mmbench(tmp_path, {"C": "", "D": "Three"}))


def test_seed_bench_leaves_videos_of_any_shape_out(tmp_path):
    for video in ({"data_type": "Video", "data_id": ["a", 1]}, {"data_type": "video", "choice_a": None}):
        dataset = opened("seed-bench", make_seed(tmp_path, video))
        assert len(list(dataset)) == 3
        assert dataset.notes == ["dataset seed-bench: 2 records left out: questions about videos"]
    only = [{"data_type": "video"}, {"question_type_id": 11, "data_id": None}]
    as_json(tmp_path / "SEED-Bench.json", {"questions": only})
    with pytest.raises(DatasetBroken, match="nothing to ask: 2 records left out: questions about videos"):
        opened("seed-bench", tmp_path)


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


def test_the_page_names_every_reader_its_folders_and_its_hub_id():
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `") and row.count("|") == 7}
    assert set(rows) == set(BENCHMARKS)
    for name, kind in BENCHMARKS.items():
        assert rows[name].count("the same") == 4 or all(f"`{part}`" in rows[name] for part in kind.PICTURES)
        assert kind.HUB is None or f"`{kind.HUB}`" in page
