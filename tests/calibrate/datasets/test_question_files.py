"""Files of a user's own questions: docs/jsonl.md holds, in each of its formats, and what does not fit is named."""

import base64
import builtins
import csv
import json
import re
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from calibrate.datasets import open_dataset
from calibrate.datasets.question_fields import FIELDS
from calibrate.errors import DatasetBroken, DatasetLibraryMissing, SplitUnknown

PAGE = (Path(__file__).parents[3] / "docs" / "jsonl.md").read_text(encoding="utf-8")
GOOD = {"image": "a.png", "question": "How many?", "answer": "2"}


def example(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "birds.png", "pictures/street.png"):
        Image.new("RGB", (40, 20), (200, 30, 30)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(path, split="all", **options):
    return open_dataset(str(path), samples=1000, seed=0, split=split, **options)


def saved(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_page_has_every_field():
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == FIELDS


def test_the_page_s_json_lines(folder):
    birds, bus, colour, sky, square = opened(saved(folder, "mine.jsonl", example("jsonl")))
    assert (birds.id, birds.family, birds.answer, birds.options) == (
        "mine.jsonl:1",
        "all",
        "None",
        ("None", "One", "Two"),
    )
    assert (bus.id, bus.family, bus.options, bus.box) == ("street-1", "yes_no", ("yes", "no"), None)
    assert (colour.box, colour.options) == ((4.0, 2.0, 20.0, 12.5), ("red", "blue", "black"))
    assert sky.options == square.options == colour.options
    assert (square.image.size, square.image.getpixel((5, 5))) == ((20, 20), (0, 0, 0))


def test_the_page_s_csv(folder):
    birds, bus = opened(saved(folder, "mine.csv", example("csv")))
    assert (birds.id, birds.family, birds.answer, birds.options) == (
        "mine.csv:1",
        "all",
        "None",
        ("None", "One", "Two"),
    )
    assert (bus.question, bus.id, bus.box) == ('Is there a bus, or a "tram"?', "street-1", (4.0, 2.0, 20.0, 12.5))


def test_the_page_s_parquet(folder):
    exec(compile(example("python"), "docs/jsonl.md", "exec"), {})
    bus, birds = opened("mine.parquet")
    assert (bus.id, bus.options, bus.image.size) == ("mine.parquet:0", ("yes", "no"), (40, 20))
    assert birds.question == "Any birds?"


def test_a_file_has_no_splits_and_needs_a_record(folder):
    for name, text in (("a.jsonl", "\n"), ("a.csv", ""), ("b.csv", "image,question,answer\n")):
        with pytest.raises(DatasetBroken, match=f"{name}: has no (line|row)"):
            opened(saved(folder, name, text))
    with pytest.raises(SplitUnknown, match="choosing, measuring, all"):
        opened(folder / "a.csv", split="train")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "image;question;answer\na.png;?;2\n", "no column 'image', but image;question;answer"),
        ("a.csv", "image,question,answer,image\na,b,c,d\n", "column 'image' stands twice"),
        ("a.csv", "image,question,answer\na.png,?\n", "row 1: has 2 cells; expected 3"),
        ("a.csv", 'image,question,answer\na.png,"Is it?" she said,2\n', "row that begins in line 2"),
        ("a.csv", 'image,question,answer\na.png,?,1\na.png,"Is it?,2\n', "row that begins in line 3"),
        ("a.csv", b"image,question,answer\na.png,caf\xe9,2\n", "line 2 is not UTF-8"),
        ("a.csv", "image,question,answer,options\na.png,?,2,['2']\n", "row 1: field 'options' is"),
        ("a.jsonl", '{"image": "a.png", "image": "b.png"}', "line 1: field 'image' stands twice"),
        (
            "a.jsonl",
            '\ufeff{"image": 1 "b": 2}',
            "line 1: is not JSON (Expecting ',' delimiter at column 13)",
        ),
        ("a.jsonl", b'{"image": "caf\xe9"}', "line 1: is not JSON (its byte 15 is not UTF-8)"),
        ("a.jsonl", '{"box": [1, %s]}' % ("9" * 5000), "line 1: is not JSON (a number in it is too long)"),
        ("a.jsonl", "[" * 100_000, "line 1: is not JSON (it is nested too deeply)"),
        ("a.jsonl", json.dumps(GOOD | {"image": "https://a/b.png"}), "'image' is \"https://a/b.png\"; expected a path"),
        (
            "a.jsonl",
            json.dumps(GOOD | {"image": "data:image/png,x"}),
            "'image' is \"data:image/png,x\"; expected a path",
        ),
        ("a.jsonl", json.dumps(GOOD | {"question": "\ud83d"}), "'question' has half of a surrogate pair"),
        ("a.jsonl", json.dumps(GOOD | {"options": ["2", "2 "]}), "'options' is"),
        ("a.jsonl", json.dumps(GOOD | {"box": [0, 0, 10**400, 1]}), "'box' is"),
        ("a.parquet", b"PAR1 no", "cannot be read as Parquet"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, name, content, said):
    with pytest.raises(DatasetBroken) as caught:
        opened(saved(folder, name, content))
    line = str(caught.value)
    assert line.startswith(f"{folder / name}: ")
    assert said in line
    assert line.isprintable()


def test_columns_that_are_not_read_are_said(folder):
    dataset = opened(saved(folder, "a.csv", "id,image,question,answer,hint,\n1,a.png,?,NA,x,7\n"))
    said = []
    dataset.announce(said.append)
    assert said == ["dataset a.csv: columns that are not read: hint, (without a name)"]
    assert [(one.id, one.answer) for one in dataset] == [("1", "NA")]


def test_pictures_that_are_left_out_are_said(folder):
    (folder / "text.png").write_text("no picture")
    lines = [GOOD] * 200
    lines[7] = GOOD | {"image": "gone.png"}
    lines[9] = GOOD | {"image": "data:image/png;base64,####"}
    dataset, said = opened(saved(folder, "a.jsonl", "\n".join(map(json.dumps, lines)))), []
    dataset.announce(said.append)
    assert len(list(dataset)) == 198
    assert said == [f"dataset a.jsonl: left out: {line}" for line in dataset.broken]
    assert said[0].endswith("line 8: image gone.png is missing")
    assert "line 10: image in its data URI cannot be decoded (" in said[1]
    lines[20] = GOOD | {"image": "text.png"}
    with pytest.raises(DatasetBroken, match="3 of 200 images are broken, such as line 8"):
        list(opened(saved(folder, "a.jsonl", "\n".join(map(json.dumps, lines)))))


def test_when_all_pictures_are_missing_it_says_all(folder):
    path = saved(folder, "a.jsonl", f"{json.dumps(GOOD | {'image': 'gone.png'})}\n" * 3)
    with pytest.raises(DatasetBroken, match="3 of 3 images are broken"):
        list(opened(path))


def test_families_with_and_without_a_name(folder):
    lines = [GOOD | {"family": "b"}, GOOD | {"answer": "3"}, GOOD | {"family": "all"}, GOOD | {"family": None}]
    path = saved(folder, "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [(one.family, one.options) for one in opened(path)] == [("b", ("2",)), *[("all", ("3", "2"))] * 3]
    assert len(opened(path, families=["all"])) == 4
    assert len(opened(path, families=["b"])) == 1


def test_excel_s_and_pandas_files(folder):
    told = [('He said "no"\nor, "yes"', "n/a"), ("?", "nan")]
    with (folder / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "image", "question", "answer"])
        table.writerows([number, "a.png", *one] for number, one in enumerate(told))
    assert [(one.question, one.answer) for one in opened(folder / "a.csv")] == told


@pytest.mark.parametrize("kind", ["text", "bytes", "dictionary"])
def test_parquet_columns_of_other_types(folder, kind):
    content = (folder / "a.png").read_bytes()
    image = content if kind == "bytes" else base64.b64encode(content).decode()
    images = pyarrow.array([image, image], pyarrow.large_binary() if kind == "bytes" else pyarrow.string())
    columns = {
        "image": images.dictionary_encode() if kind == "dictionary" else images,
        "question": pyarrow.array(["?", "?"]).dictionary_encode(),
        "answer": pyarrow.array(["1", "2"], pyarrow.large_string()),
        "id": pyarrow.array([7, None], pyarrow.int64()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    seven, other = opened(folder / "a.parquet")
    assert (seven.id, other.id) == ("7", "a.parquet:1")
    assert seven.image.size == other.image.size == (40, 20)


def test_parquet_of_the_wrong_type_is_named(folder):
    table = {"image": [{"bytes": b"", "path": None}, None], "question": ["?", "?"], "answer": ["1", "2"]}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "a.parquet")
    with pytest.raises(DatasetBroken, match="row 1: field 'image' is empty"):
        opened(folder / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({**table, "image": [1, 2]}), folder / "a.parquet")
    with pytest.raises(DatasetBroken, match="row 0: field 'image' is of the type int64"):
        opened(folder / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({**table, "answer": [1, 2]}), folder / "a.parquet")
    with pytest.raises(DatasetBroken, match="row 0: field 'answer' is 1; expected a text"):
        opened(folder / "a.parquet")


def test_without_pyarrow_it_says_what_to_install(folder, monkeypatch):
    path = saved(folder, "a.parquet", b"")
    real = builtins.__import__

    def refusing(name, *rest, **named):
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError("No module named 'pyarrow'")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(DatasetLibraryMissing, match=r"pip install 'vhserve\[parquet\]'") as caught:
        opened(path)
    assert "\n" not in str(caught.value)
