"""Published metrics in `vhserve evaluate`: POPE's figures and MMBench's circles, from replies over real HTTP."""

import base64
import json
from pathlib import Path

import pytest
from PIL import Image
from scripted_endpoint import endpoint, question_of

from vhserve.cli import main
from vhserve.evaluation.results import load


def evaluate(here, dataset: str, *flags: object) -> int:
    words = ["evaluate", "--base-url", here.base_url, "--dataset", dataset, "--samples", "1000"]
    return main([*words, *map(str, flags)])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (24, 24), "red").save(tmp_path / "val2014" / "one.jpg")
    return tmp_path


def test_pope_s_figures(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["yes", "yes", "yes", "no", "no"]
    lines = [
        {"question_id": n, "image": "one.jpg", "text": f"Is there a {n}?", "label": label}
        for n, label in enumerate(labels)
    ]
    (picture / "coco_pope_random.json").write_text("\n".join(map(json.dumps, lines)))
    replies = {0: "Yes", 1: "No", 2: "Yes, there is.", 3: "yes", 4: 500}
    out = picture / "results.json"

    def answer(request):
        return replies[int(question_of(request).split("?")[0].split()[-1])]

    with endpoint(answer) as here:
        assert evaluate(here, f"pope:{picture}", "--out", out) == 0
    told = capsys.readouterr().out
    (arm,) = load(out).arms
    assert arm.metric == "yes_no"
    # Said yes: 0, 2, 3. Meant yes: 0, 1, 2. The last request failed.
    expected = {"accuracy": 2 / 4, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "yes_ratio": 3 / 4}
    assert arm.published == {"random": pytest.approx(expected), "all": pytest.approx(expected)}
    assert "yes ratio" in told
    assert "66.7%" in told


def test_mmbench_in_circles(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = base64.b64encode((picture / "val2014" / "one.jpg").read_bytes()).decode()
    header = [
        "index",
        "question",
        "hint",
        "A",
        "B",
        "C",
        "D",
        "answer",
        "category",
        "image",
        "source",
        "l2-category",
        "split",
    ]
    rows = [
        [n, f"Which {n}?", "nan", "left", "right", "nan", "nan", "A", "c", image, "s", "place", "dev"] for n in (1, 2)
    ]
    table = "\n".join("\t".join(map(str, row)) for row in (header, *rows))
    (picture / "mmbench_dev_x.tsv").write_text(table + "\n")

    def answer(request):
        lines = question_of(request).splitlines()
        right = next(line[0] for line in lines if line.endswith(". left"))
        return "A" if "Which 2?" in lines else right  # of question 2, A is right in one of two circles

    with endpoint(answer) as here:
        assert evaluate(here, f"mmbench-circular:{picture}", "--json") == 0
    (arm,) = json.loads(capsys.readouterr().out)["arms"]
    assert arm["published"]["all"] == {"circular_accuracy": 0.5, "accuracy": 0.75}
    assert [one["group"] for one in arm["answers"]] == [f"mmbench-circular:{n}" for n in (1, 1, 2, 2)]
