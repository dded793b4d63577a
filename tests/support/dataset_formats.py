"""Dataset files of every format for the fuzz: how records are drawn, damaged, written, and what asking them means.

Says what is expected of a record in its own words, with nothing of the readers. Each format is a `Format`.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from hypothesis import strategies as st
from PIL import Image

WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
COLOURS = {"red.png": (200, 30, 30), "a b é.png": (30, 160, 60), "NA": (20, 40, 220)}
"""Pictures by file name, which is all that a record says of its own here."""

SIZE = (24, 16)
"""Of every picture, in pixels."""


class Asked(NamedTuple):
    """What a sample must be; `drawn` says that its box stands on its picture."""

    question: str
    answer: str
    options: tuple[str, ...]
    family: str
    box: tuple[float, ...] | None = None
    drawn: bool = False


def encoded(name: str) -> bytes:
    """The picture of that name as a PNG file."""
    file = io.BytesIO()
    Image.new("RGB", SIZE, COLOURS[name]).save(file, format="PNG")
    return file.getvalue()


PNG = {name: encoded(name) for name in COLOURS}

AWKWARD = (
    *("NA", "None", "nan", "null", "NULL", "N/A", "true", "-", "0", "1e999", "=1+1", "'", "\\n", "[1, 2]", "{}"),
    *(" blank before", "blank behind ", "\u3000wide\u3000", "\ufeffmark", "\u2028line\u2028", "tab\there", "a,b;c"),
    *('"', '"quoted"', 'half "quoted', '""', "two\nlines", "two\r\nlines", "carriage\rreturn", "\u202eright to left"),
    *("e\u0301", "\U0001f426", "\x00", "9" * 400, "[" * 60, "x" * 300),
)
TEXT = (st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)).filter(
    str.strip
)
BLANK = st.sampled_from(["", " ", "\t", "\n", "\u3000"])
NO_TEXT = st.sampled_from([None, 3, -(10**400), 1.5, True, [], ["a"], [[[[]]]], {"a": {}}, "\ud800", "a\udfff"]) | BLANK
PICTURES = st.sampled_from(sorted(COLOURS))


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    dataset
        What `--dataset` takes, from the folder.
    records
        Lists of records that fit.
    write
        Writes records into a folder; takes a style, too.
    asked
        What a record that fits must become, in order.
    damage
        For each field, values that do not fit.
    place
        What the record of a number is called.
    """

    dataset: Callable[[Path], str]
    records: st.SearchStrategy[list[dict[str, Any]]]
    write: Callable[[Path, Sequence[Mapping[str, Any]], Mapping[str, bool]], None]
    asked: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], list[Asked]]
    damage: Mapping[str, st.SearchStrategy[Any]]
    place: Callable[[int, Mapping[str, bool]], str]


STYLES = st.fixed_dictionaries({name: st.booleans() for name in ("mark", "crlf", "ascii", "other")})
"""How a file is written: with a byte order mark, with CR LF, with JSON's escapes; `other` is the format's own."""


def some(record: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(record, min_size=1, max_size=4)


def save(path: Path, text: str, style: Mapping[str, bool]) -> None:
    path.write_bytes((b"\xef\xbb\xbf" if style["mark"] else b"") + text.encode())


def dumped(value: Any, style: Mapping[str, bool]) -> str:
    text = json.dumps(value, ensure_ascii=style["ascii"])
    return text if text.isascii() or _encodable(text) else json.dumps(value)


def _encodable(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def as_lines(path: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    end = "\r\n" if style["crlf"] else "\n"
    save(path, "".join(dumped(one, style) + end for one in records), style)


def as_document(path: Path, document: Any, style: Mapping[str, bool]) -> None:
    save(path, dumped(document, style), style)


def as_cells(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], tab: bool, style: Any) -> None:
    file = io.StringIO(newline="")
    # Python 3.11 quotes a cell with a line end only where the line end of the file has its characters.
    quoting = csv.QUOTE_MINIMAL if style["crlf"] else csv.QUOTE_ALL
    end = "\r\n" if style["crlf"] else "\n"
    table = csv.DictWriter(file, columns, delimiter="\t" if tab else ",", lineterminator=end, quoting=quoting)
    table.writeheader()
    table.writerows(rows)
    save(path, file.getvalue(), style)


# Records of a user's own: the fields of docs/jsonl.md.

OWN = st.fixed_dictionaries(
    {"image": PICTURES, "how": st.sampled_from(["path", "uri", "base64"]), "question": TEXT, "answer": TEXT},
    optional={
        "family": TEXT,
        "others": st.lists(TEXT, max_size=3),
        "box": st.sampled_from([[0, 0, 5, 5], [1.5, 2, 10**300, 16]]),
        "id": TEXT,
    },
)
BOXES = st.sampled_from([[], [0, 0, 5], [0, 0, 10**400, 5], [5, 0, 5, 9], [-1, 0, 5, 5], [0, 0, float("nan"), 1], "x"])
OPTIONS = st.sampled_from([[], ["other"], ["a", "a "], ["a", ""], [["a"]], [1], {"a": 1}, "a"])


def image_text(record: Mapping[str, Any]) -> str:
    content = base64.encodebytes(PNG[record["image"]]).decode()
    return {"path": record["image"], "uri": f"data:image/png;base64,{content}", "base64": content}[record["how"]]


def own_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they stand in a file."""
    fields = {name: one for name, one in record.items() if name not in ("how", "others", "damaged")}
    fields["image"] = image_text(record)
    if "others" in record:
        answer = record["answer"].strip()
        others = dict.fromkeys(one.strip() for one in record["others"])
        fields["options"] = [*(one for one in others if one != answer), record["answer"]]
    return fields | record.get("damaged", {})


def own_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    family = record.get("family", "all")
    shared = dict.fromkeys(one["answer"].strip() for one in records if one.get("family", "all") == family)
    options = own_record(record).get("options", shared)
    box = record.get("box")
    inside = None if box is None else (box[0], box[1], min(box[2], SIZE[0]), min(box[3], SIZE[1]))
    return [Asked(record["question"], record["answer"].strip(), tuple(one.strip() for one in options), family, inside)]


def own_lines(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    as_lines(folder / "own.jsonl", [own_record(one) for one in records], style)


def own_rows(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    columns = ["id", "question", "image", "note", "answer", "options", "box", "family"]
    rows = [
        {
            name: json.dumps(one) if name in ("options", "box") and not isinstance(one, str) else one
            for name, one in own_record(record).items()
        }
        for record in records
    ]
    as_cells(folder / "own.csv", columns, rows, False, style)


SCHEMA = (
    *(("question", pyarrow.string()), ("answer", pyarrow.large_string()), ("family", pyarrow.string())),
    *(
        ("options", pyarrow.list_(pyarrow.string())),
        ("box", pyarrow.list_(pyarrow.float64())),
        ("id", pyarrow.string()),
    ),
    ("note", pyarrow.int64()),
)


def own_parquet(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    if style["mark"]:
        kind: Any = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    else:
        kind = pyarrow.binary() if style["other"] else pyarrow.string()
    rows = []
    for record in records:
        row, name = own_record(record), record["image"]
        if "box" in row:
            row["box"] = [float(one) for one in row["box"]]
        if style["mark"]:
            by_path = record["how"] == "path"
            row["image"] = {"bytes": None, "path": name} if by_path else {"bytes": PNG[name], "path": "gone.png"}
        elif style["other"]:
            row["image"] = PNG[name]
        rows.append(row)
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema([("image", kind), *SCHEMA]))
    pyarrow.parquet.write_table(table, folder / "own.parquet", compression="zstd" if style["crlf"] else "none")


# Published ones.

POPE = st.fixed_dictionaries(
    {"question_id": st.integers(0, 10**400), "image": PICTURES, "text": TEXT}
    | {"label": st.sampled_from(["yes", "no", "Yes", "No", "YES", " no "])}
)


def pope(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    write = as_document if style["other"] else as_lines
    write(folder / "gqa_pope_seem_popular.json", [plain(one) for one in records], style)


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in record.items() if name != "damaged"} | record.get("damaged", {})


def pope_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    return [Asked(record["text"] + WORD, record["label"].strip().lower(), ("yes", "no"), "popular")]


CELL = TEXT.filter(lambda text: text != "nan")
MMBENCH = st.fixed_dictionaries(
    {"index": st.integers(0, 999_999), "image": PICTURES, "question": TEXT, "hint": st.just("") | CELL}
    | {"options": st.lists(TEXT, min_size=1, max_size=3), "last": CELL, "empty": st.sampled_from(["", "nan"])}
    | {"right": st.integers(0, 3), "l2-category": st.sampled_from(["logic", "Coarse (x)"]), "rotated": st.booleans()}
)


def mmbench(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    rows = []
    for record in records:
        options = [*record["options"], record["last"]]
        row = dict(zip("ABCD", options + [record["empty"]] * 3, strict=False))
        row |= {name: record[name] for name in ("question", "hint", "l2-category")}
        row["index"] = str(record["index"] + 1_000_000 * record["rotated"])
        row["image"] = base64.b64encode(PNG[record["image"]]).decode()
        rows.append(row | {"answer": "ABCD"[record["right"] % len(options)]} | record.get("damaged", {}))
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "image", "l2-category"]
    as_cells(folder / "mmbench_dev_x.tsv", columns, rows, True, style)


def mmbench_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    if record["rotated"]:
        return []
    options = [*record["options"], record["last"]]
    hint = f"{record['hint']}\n" if record["hint"] else ""
    lines = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    right = "ABCD"[record["right"] % len(options)]
    family = {"logic": "logic", "Coarse (x)": "coarse_x"}[record["l2-category"]]
    return [Asked(f"{hint}{record['question']}{lines}{LETTER}", right, tuple("ABCD"[: len(options)]), family)]


SEED = st.fixed_dictionaries(
    {"question_id": st.integers(0, 10**9), "data_id": PICTURES, "question": TEXT, "data_type": st.just("image")}
    | {f"choice_{letter}": TEXT for letter in "abcd"}
    | {"answer": st.sampled_from("ABCD"), "question_type_id": st.integers(1, 9) | st.sampled_from(["1", "9"])}
)
VIDEO = st.fixed_dictionaries(
    {"data_type": st.sampled_from(["video", "Video", "VIDEO "])},
    optional=dict.fromkeys(("data_id", "question", "choice_a", "answer", "segment"), NO_TEXT | TEXT),
) | st.fixed_dictionaries({"question_type_id": st.sampled_from([10, 11, "12"])}, optional={"data_id": NO_TEXT})


def seed(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    as_document(folder / "SEED-Bench.json", {"questions": [plain(one) for one in records]}, style)


SEED_TYPES = (
    *("scene_understanding", "instance_identity", "instance_attributes", "instance_location", "instances_counting"),
    *("spatial_relation", "instance_interaction", "visual_reasoning", "text_understanding"),
)


def seed_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    if record.get("data_type") != "image":
        return []
    lines = "".join(f"\n{letter}. {record[f'choice_{letter.lower()}']}" for letter in "ABCD")
    family = SEED_TYPES[int(record["question_type_id"]) - 1]
    return [Asked(record["question"] + lines + LETTER, record["answer"], tuple("ABCD"), family)]


QUALITY = st.fixed_dictionaries(
    {"img_path": PICTURES, "question": TEXT, "concern": st.integers(0, 3), "right": st.integers(0, 3)}
    | {"candidates": st.lists(TEXT, min_size=2, max_size=4, unique_by=str.strip)}
)


def q_bench(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    rows = []
    for record in records:
        right = record["candidates"][record["right"] % len(record["candidates"])]
        rows.append(record | {"correct_ans": right, "type": 0} | record.get("damaged", {}))
    as_document(folder / "llvisionqa_dev.json", rows, style)


CONCERNS = ("distortion", "others", "in_context_distortion", "in_context_others")


def q_bench_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    options = record["candidates"]
    lines = "".join(f"{letter}. {option}\n" for letter, option in zip("ABCD", options, strict=False))
    text = f"{record['question']}\nChoose between one of the options as follows:\n{lines}"
    right = "ABCD"[record["right"] % len(options)]
    return [Asked(text, right, tuple("ABCD"[: len(options)]), CONCERNS[record["concern"]])]


LOOK_TEXTS = ("general_question", "obj_question", "super_question")
LOOKS = st.fixed_dictionaries(
    dict.fromkeys(LOOK_TEXTS, TEXT)
    | {"bboxes": st.just([[1, 2, 9, 9.5]]), "answer": st.sampled_from("1234567") | st.integers(1, 7), "image": PICTURES}
)


def pointqa(folder: Path, records: Sequence[Mapping[str, Any]], style: Mapping[str, bool]) -> None:
    as_document(folder / "pointQA_twice_test.json", [plain(one) for one in records], style)


def pointqa_asked(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[Asked]:
    pointer = " The exemplary object is within the rectangle."
    numbers = tuple("1234567")
    box, answer = tuple(record["bboxes"][0]), str(record["answer"])
    return [
        Asked(
            f"{record[f'{name}_question']}{pointer if drawn else ''}{WORD}",
            answer,
            numbers,
            {"obj": "object"}.get(name, name) + ("_box" if drawn else ""),
            box,
            drawn,
        )
        for name in ("general", "obj", "super")
        for drawn in (False, True)
    ]


def once(records: st.SearchStrategy[list[dict[str, Any]]], *names: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Only lists in which a field has another value in every record that has it."""
    return records.filter(
        lambda some: all(
            len({str(one[name]) for one in some if name in one}) == sum(name in one for one in some) for name in names
        )
    )


own = once(some(OWN), "id")
TEXT_FIELDS = {"question": NO_TEXT, "answer": NO_TEXT}
CELL_FIELDS = {"question": BLANK, "answer": BLANK, "image": BLANK, "box": BOXES, "options": OPTIONS}

FORMATS = {
    "jsonl": Format(
        lambda folder: f"{folder}/own.jsonl",
        own,
        own_lines,
        own_asked,
        TEXT_FIELDS
        | {"image": NO_TEXT | st.just("https://a/b.png"), "box": BOXES, "options": OPTIONS, "boxes": TEXT}
        | {"family": BLANK | st.just("\ud800"), "id": BLANK | st.just([1])},
        lambda number, style: f"line {number + 1}",
    ),
    "csv": Format(
        lambda folder: f"{folder}/own.csv",
        own,
        own_rows,
        own_asked,
        CELL_FIELDS,
        lambda number, style: f"row {number + 1}",
    ),
    "parquet": Format(
        lambda folder: f"{folder}/own.parquet",
        own,
        own_parquet,
        own_asked,
        {"question": BLANK | st.none(), "answer": BLANK | st.none(), "family": BLANK, "id": BLANK}
        | {"box": st.sampled_from([[], [0, 0, float("inf"), 1], [3, 3, 2, 2]]), "options": st.just(["a", " "])},
        lambda number, style: f"row {number}",
    ),
    "pope": Format(
        lambda folder: f"pope:{folder}/gqa_pope_seem_popular.json",
        once(some(POPE), "question_id"),
        pope,
        pope_asked,
        {"text": NO_TEXT, "label": NO_TEXT | st.just("maybe"), "image": NO_TEXT, "question_id": st.just([]) | BLANK},
        lambda number, style: f"record {number}" if style["other"] else f"line {number + 1}",
    ),
    "mmbench": Format(
        lambda folder: f"mmbench:{folder}/mmbench_dev_x.tsv",
        once(some(MMBENCH), "index"),
        mmbench,
        mmbench_asked,
        {"question": BLANK, "answer": BLANK | st.just("E"), "A": BLANK, "index": BLANK, "l2-category": BLANK},
        lambda number, style: f"row {number + 1}",
    ),
    "seed-bench": Format(
        lambda folder: f"seed-bench:{folder}/SEED-Bench.json",
        once(some(SEED | VIDEO), "question_id"),
        seed,
        seed_asked,
        dict.fromkeys(("question", "choice_a", "choice_d", "data_id", "answer"), NO_TEXT)
        | {"data_type": st.just("Single Image"), "question_type_id": st.sampled_from([0, 10, "x", 1.0, True])},
        lambda number, style: f"question {number}",
    ),
    "q-bench": Format(
        lambda folder: f"q-bench:{folder}/llvisionqa_dev.json",
        some(QUALITY),
        q_bench,
        q_bench_asked,
        {"question": NO_TEXT, "img_path": NO_TEXT, "correct_ans": NO_TEXT, "concern": st.sampled_from([4, -1, "x"])}
        | {"candidates": st.sampled_from(["Yes", ["a", ""], [1, 2], None])},
        lambda number, style: f"record {number}",
    ),
    "pointqa": Format(
        lambda folder: f"pointqa:{folder}/pointQA_twice_test.json",
        some(LOOKS),
        pointqa,
        pointqa_asked,
        dict.fromkeys(LOOK_TEXTS, NO_TEXT)
        | {"answer": st.sampled_from([0, 8, "2.0", None, 2.0]), "image": NO_TEXT}
        | {"bboxes": st.sampled_from([[], [[1, 2]], [[0, 0, 10**400, 4]], [[1, 1, 1, 1]], "x", None])},
        lambda number, style: f"record {number}",
    ),
}
