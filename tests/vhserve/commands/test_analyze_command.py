"""`vhserve analyze` as a user runs it: one page, the numbers beside it, and one line for each mistake."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from planted_model import PLANTED, PlantedWorld, make_planted

from vhserve.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The planted model, and its samples as a file: `boxed.jsonl` with boxes, `plain.jsonl` of one family without."""
    path = tmp_path_factory.mktemp("analyze")
    make_planted(path / "model")
    lines = {"boxed": [], "plain": []}
    for number, sample in enumerate(PlantedWorld(16)):
        sample.image.save(path / f"{number}.png")
        line = {"image": f"{number}.png", "question": sample.question, "answer": sample.answer}
        lines["plain"].append(line)
        lines["boxed"].append(line | {"family": sample.family, "box": sample.box, "options": sample.options})
    for name, some in lines.items():
        (path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    return path


def analyze(folder, *flags):
    return main(["analyze", "--model", str(folder / "model"), "--device", "cpu", *flags])


class Addresses(HTMLParser):
    """Everything that a page asks a browser to fetch, and its text."""

    def __init__(self, html):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def test_page_and_numbers(folder, tmp_path, capsys):
    out = tmp_path / "analysis"
    flags = ["--dataset", str(folder / "boxed.jsonl"), "--split", "all", "-k", "1", "--draws", "2", "--out", str(out)]
    assert analyze(folder, *flags) == 0
    shown, progress = capsys.readouterr()
    assert "analysing 16/16" in progress
    assert "16 samples of boxed.jsonl, 2 question families" in shown
    *_, written = progress.splitlines()
    assert set(written.removeprefix("vhserve: wrote ").split(", ")) == {str(path) for path in out.iterdir()}
    assert "Visual heads gather in certain layers" in shown

    html = (out / "report.html").read_text()
    page = Addresses(html)
    assert all(address.startswith("data:image/svg+xml;base64,") or address == "data:," for address in page.found)
    assert len(page.found) >= 7
    assert not re.search(r"https?://|@import|url\(|<script", html)
    document = json.loads((out / "analysis.json").read_text())
    assert (document["format"], document["samples"], len(document["findings"])) == ("vhserve.analysis", 16, 6)
    assert document["model"]["revision"].startswith("sha256v2:")
    assert document["settings"]["dataset"] == [str(folder / "boxed.jsonl")]
    for finding in document["findings"]:
        assert finding["title"] in page.text
        for claim in finding["claims"]:
            assert claim["found"] in page.text
            if claim["low"] is not None:
                assert claim["low"] <= claim["value"] <= claim["high"]
    for name, section in document["sections"].items():
        assert section["title"] in page.text
        if section["rows"]:
            with (out / f"{name}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            told = [{key: "" if value is None else str(value) for key, value in row.items()} for row in section["rows"]]
            assert [{key: row[key] for key in one} for row, one in zip(rows, told, strict=True)] == told
    assert set(document["sections"]) >= {"attention", "logit-lens", "ablation", "similar-families", "layers"}
    visual = {(row["layer"], row["head"]) for row in document["sections"]["attention"]["rows"] if row["score"] > 0.1}
    assert visual == set(PLANTED)
    names = {file.name for file in out.iterdir()}
    assert not [name for name in names if name.endswith(".partial")]
    assert "ablation.json" in names

    # A page that is named, without boxes, without ablation, against its own profile.
    assert main(["calibrate", "--model", str(folder / "model"), "--dataset", str(folder / "plain.jsonl"), "--out",
                 str(tmp_path / "twin.json")]) == 0  # fmt: skip
    capsys.readouterr()
    flags = ["--dataset", str(folder / "plain.jsonl"), "--no-ablation", "--variants", str(tmp_path / "twin.json")]
    assert analyze(folder, *flags, "--out", str(tmp_path / "page.html"), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "page.json").read_text()) == document
    assert {"page.html", "page-attention.csv"} <= {file.name for file in tmp_path.iterdir()}
    assert all(row["box_weight"] is None for row in document["sections"]["attention"]["rows"])
    assert "ablation" not in document["sections"]
    (variants, others) = next(one for one in document["findings"] if "family" in one["title"])["claims"]
    assert (variants["verdict"], others["verdict"]) == ("holds", "not measured")
    assert variants["value"] == pytest.approx(1)


def test_a_comparison_of_rankings_has_a_section_of_its_own(folder, tmp_path, capsys):
    """As a user makes it: profile with effects, comparison, page."""
    profile, rankings, out = (tmp_path / name for name in ("profile.json", "rankings.json", "page.html"))
    asked = ["--model", str(folder / "model"), "--dataset", str(folder / "boxed.jsonl"), "--device", "cpu"]
    assert main(["calibrate", *asked, "--effects", "--out", str(profile)]) == 0
    measured = ["--samples", "8", "--groups", "6", "--group-size", "4", "--out", str(rankings)]
    assert main(["rankings", str(profile), *asked, *measured]) == 0
    assert analyze(folder, *asked[2:4], "--no-ablation", "--rankings", str(rankings), "--out", str(out)) == 0
    capsys.readouterr()
    section = json.loads((tmp_path / "page.json").read_text())["sections"]["rankings"]
    assert section["title"] in Addresses(out.read_text()).text
    comparison = json.loads(rankings.read_text())
    assert {row["ranking"] for row in section["rows"]} == set(comparison["rankings"])
    with (tmp_path / "page-rankings.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(section["rows"])


def test_a_dataset_is_opened_once_and_its_notes_come_once(folder, tmp_path, capsys):
    """Its other half is ablated on; and a model that is never right is said to be."""
    lines = [json.loads(line) for line in (folder / "plain.jsonl").read_text().splitlines()]
    others = {one["answer"] for one in lines}
    rows = [one | {"note": "x", "answer": min(others - {one["answer"]})} for one in lines]
    with (folder / "wrong.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    flags = ["--dataset", str(folder / "wrong.csv"), "-k", "1", "--draws", "1", "--out", str(tmp_path / "page.html")]
    assert analyze(folder, *flags) == 0
    said = capsys.readouterr().err
    assert said.count("columns that are not read: note") == 1
    assert "the model answers none of" in said
    assert "the whole model answers none of" in said
    page = Addresses((tmp_path / "page.html").read_text())
    assert "the model answers none of" in page.text
    assert json.loads((tmp_path / "page-ablation.json").read_text())["dataset"]["split"] == "measuring"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--out", "missing/folder"], "missing/folder"),
        (["--out", "missing/page.html"], "page.html"),
        (["--model", "lava-1.5-7b"], "llava-1.5-7b"),
        (["--dataset", "pictures"], "pictures"),
        (["--dataset", "missing.jsonl"], "missing.jsonl"),
        (["--variants", "missing.json"], "missing.json"),
        (["--ablation", "missing.json"], "missing.json"),
        (["--rankings", "missing.json"], "missing.json"),
        (["--families", "weather"], "weather"),
        (["-k", "11"], "11 heads"),
        ([], "16 heads"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(flags, words, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert analyze(folder, *flags, *(["--out", "page.html"] if "--out" not in flags else [])) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert words in err
    assert not list(tmp_path.iterdir())
