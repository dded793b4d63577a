"""Small datasets in the official formats: four questions each, as the published files write them."""

import base64
import csv
import io
import json

from PIL import Image

from calibrate.datasets import open_dataset


def picture(path, colour=(30, 160, 60), size=(48, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, format="PNG")


def as_json(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def as_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


LOOKS = {
    "id": 2414753,
    "obj_question": "How many dogs are there?",
    "super_question": "How many of these beings are there?",
    "general_question": "How many of these are there?",
    "ans": "2",
    "qtype": "howmany",
    "obj_type": "dogs",
    "point": {"x": 14, "y": 12, "ans": "2"},
    "bbox": {"x": 8, "y": 6, "w": 12, "h": 10, "object_id": 1, "names": ["dog"], "synsets": []},
}


def pointqa(folder, change=None):
    """Two images with two questions each in `test`, one in `train`."""
    records = {
        "2414753": [LOOKS, LOOKS | {"ans": "7", "obj_question": "How many balls are there?"}],
        "31": [LOOKS | {"id": 31, "ans": "1"}, LOOKS | {"id": 31, "ans": "3", "obj_type": "cars"}],
        "150": [LOOKS | {"id": 150}],
    }
    if change:
        records["31"][1] = records["31"][1] | change
    as_json(folder / "looktwiceqa_test_imgs.json", ["2414753", "31"])
    as_json(folder / "looktwiceqa_train_imgs.json", ["150"])
    for part, image in (("VG_100K", "31"), ("VG_100K_2", "2414753"), ("VG_100K", "150")):
        picture(folder / part / f"{image}.jpg")
    as_json(folder / "looktwiceqa_dataset.json", records)
    return folder


VIP = {
    "id": "pointQA_twice-0",
    "image": "vg/VG_100K_2/2414753.jpg",
    "bboxes": [[8, 6, 20, 16]],
    "obj_question": "How many dogs are there?",
    "super_question": "How many of these beings are there?",
    "general_question": "How many of these are there?",
    "answer": "2",
}


def vip_pointqa(folder, change=None):
    picture(folder / VIP["image"])
    records = [VIP | {"id": f"pointQA_twice-{i}"} for i in range(3)]
    as_json(folder / "pointQA_twice_test.json", [*records, VIP | (change or {})])
    return folder


COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer"),
    *("category", "image", "source", "l2-category", "comment", "split"),
)


def encoded(colour):
    file = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(file, format="JPEG")
    return base64.b64encode(file.getvalue()).decode()


def mmbench_rows():
    common = {"category": "image_scene", "source": "COCO", "comment": "", "split": "dev", "hint": ""}
    return [
        common
        | {"index": 241, "question": 'Which "place"\nis this?', "A": "beach", "B": "wood", "C": "road", "D": "roof"}
        | {"answer": "C", "l2-category": "coarse_perception", "image": encoded((0, 0, 255))},
        common
        | {"index": 252, "question": "Left or right?", "A": "left", "B": "right", "C": "nan", "D": "", "answer": "B"}
        | {"l2-category": "finegrained_perception (instance-level)", "hint": "A hint.", "image": "241"},
        common
        | {"index": 253, "question": "Which?", "A": "1", "B": "2", "C": "3", "D": "", "answer": "A"}
        | {"l2-category": "logic_reasoning", "image": encoded((255, 0, 0))},
        common
        | {"index": 254, "question": "What?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "D"}
        | {"l2-category": "logic_reasoning", "image": encoded((255, 255, 0))},
        # A rotation of the first, as published for circular evaluation.
        common
        | {"index": 1_000_241, "question": "Which?", "A": "wood", "B": "road", "C": "roof", "D": "beach", "answer": "B"}
        | {"l2-category": "coarse_perception", "image": "241"},
    ]


def mmbench(folder, change=None):
    rows = mmbench_rows()
    rows[1] |= change or {}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mmbench_dev_20230712.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return folder


POLL = {"question_id": 1, "image": "COCO_val2014_000000016631.jpg", "text": "Is there a person in the image?"}


def pope(folder, change=None):
    picture(folder / "val2014" / POLL["image"])
    for family in ("random", "popular", "adversarial"):
        records = [POLL | {"question_id": i, "label": ("yes", "no")[i % 2]} for i in range(4)]
        if family == "popular":
            records[1] |= change or {}
        as_lines(folder / f"coco_pope_{family}.json", records)
    as_json(folder / "coco_co_occur.json", {"person": ["tie"]})  # published beside them, and none of them
    return folder


SEED = {
    "answer": "B",
    "choice_a": "One",
    "choice_b": "Two",
    "choice_c": "Three",
    "choice_d": "Four",
    "data_id": "1454426_2591111986",
    "data_type": "image",
    "question": "How many towels are in the image?",
    "question_id": "101669",
    "question_type_id": 5,
}


def seed_bench(folder, change=None):
    picture(folder / "SEED-Bench-image" / SEED["data_id"])
    questions = [SEED | {"question_id": str(i), "question_type_id": i + 1} for i in range(4)]
    video = SEED | {"question_id": "v1738", "question_type_id": 10, "data_type": "video", "data_id": "94328.webm"}
    questions.insert(2, video)
    questions[1] |= change or {}
    as_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": {"Scene Understanding": 1}})
    return folder


QUALITY = {
    "img_path": "00087.jpg",
    "question": "Is this picture clear?",
    "candidates": ["Yes", "No"],
    "correct_ans": "No",
    "type": 0,
    "concern": 0,
}


def q_bench(folder, change=None):
    picture(folder / "images" / QUALITY["img_path"])
    records = [QUALITY | {"concern": i} for i in range(4)]
    records[2] |= {"candidates": ["High", "Low", "Medium"], "correct_ans": "Medium", "type": 2}
    records[1] |= change or {}
    as_json(folder / "llvisionqa_dev.json", records)
    return folder


MAKERS = {
    "pointqa": pointqa,
    "mmbench": mmbench,
    "mmbench-circular": mmbench,
    "pope": pope,
    "seed-bench": seed_bench,
    "q-bench": q_bench,
}


def opened(name, path, samples=1000, seed=0, split="all", **options):
    """A benchmark, by name and where it is; whole unless said otherwise."""
    return open_dataset(f"{name}:{path}", samples=samples, seed=seed, split=split, **options)
