"""The demo model with grouped queries: it computes what the demo computes, and README shows its plan."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calibrate.datasets import open_dataset
from calibrate.demo import MODEL_DIR
from calibrate.demo.grouped import GROUP_SIZE
from calibrate.models.batches import Batch, make_answered_batch
from calibrate.models.loading import LoadedModel, load_model
from calibrate.scoring.effects import EFFECTS, EffectSamples, head_effects
from profiles.names import STAGES
from profiles.store import load_plan
from vhserve.cli import main

README = Path(__file__).parents[3] / "README.md"
STAGES_AND_ALL = (*STAGES, "all")
COMMAND = [sys.executable, "-m", "calibrate.demo.grouped"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grouped") / "demo"
    subprocess.run([*COMMAND, str(path)], check=True)
    return path


def measured(loaded: LoadedModel) -> tuple[Batch, torch.Tensor, EffectSamples]:
    """Four samples, log-probabilities at all their positions, and effects of text-only heads by blocks of 32."""
    batch, answers = make_answered_batch(loaded, list(open_dataset("synthetic", samples=4, seed=2)))
    with torch.no_grad():
        said = loaded.model(**batch.inputs, use_cache=False).logits.log_softmax(-1)
    with head_effects(loaded, 32) as measure:
        return batch, said, measure(batch, answers.tokens)


@pytest.fixture(scope="module")
def both(folder: Path) -> list[tuple[LoadedModel, tuple[Batch, torch.Tensor, EffectSamples]]]:
    """The demo and the grouped one, each as it is and what was measured of it."""
    models = [load_model(str(path), "float32", "cpu") for path in (MODEL_DIR, folder)]
    return [(one, measured(one)) for one in models]


def test_it_says_what_the_demo_says(both) -> None:
    (demo, (batch, expected, _)), (grouped, (_, found, _)) = both
    assert grouped.geometry == demo.geometry.model_copy(update={"query_heads": GROUP_SIZE * demo.geometry.query_heads})
    rows = torch.arange(len(batch))[:, None]
    assert (expected - found)[rows, batch.predicting].abs().max() < 1e-5  # where answers are
    doubled = [replace(one, model=one.model.double(), dtype=torch.float64) for one in (demo, grouped)]
    (batch, expected, _), (_, found, _) = map(measured, doubled)
    assert (expected - found)[batch.valid].abs().max() < 1e-11  # and everywhere, by all that is not rounding


def test_a_group_is_worth_what_the_head_is(both) -> None:
    """And its two heads are worth something else each: neither their sum nor their mean is the group's effect."""
    (_, (*_, of_heads)), (_, (*_, of_groups)) = both
    for treatment in EFFECTS:
        heads, groups = of_heads.by_treatment[treatment], of_groups.of_groups[treatment]
        torch.testing.assert_close(groups, heads, rtol=1e-3, atol=1e-4 * float(heads.max()) + 1e-12)
    single = of_groups.by_treatment["removed"].unflatten(2, (-1, GROUP_SIZE))
    heads = of_heads.by_treatment["removed"]
    large = heads > 0.01 * heads.max()
    assert ((single[..., 0] / single[..., 1] - 1).abs() > 0.1)[large].any()
    assert ((single.sum(3) / heads - 1).abs() > 0.1)[large].any()


def test_it_is_written_into_new_folders_only(folder: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    done = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "is there and not empty; give a new folder" in done.stderr
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_readme_shows_what_its_commands_print(tmp_path: Path, monkeypatch, capsys) -> None:
    """The plan of groups that they make is the demo's plan of heads."""
    monkeypatch.chdir(tmp_path)
    section = re.search(r"^### Grouped queries\n(.*?)^## ", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert section is not None
    write, calibrate, plan = (
        shlex.split(line) for line in re.findall(r"^ {4}(\w+ .*)$", section[1].replace("\\\n", ""), re.MULTILINE)
    )
    assert write[:3] == ["python", *COMMAND[1:]]
    subprocess.run([sys.executable, *write[1:]], check=True)
    assert main(calibrate[1:]) == 0
    capsys.readouterr()
    assert main(plan[1:]) == 0
    shown = capsys.readouterr().out
    table = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", section[1], re.MULTILINE)
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown.splitlines()]
    assert [row for row in rows if row[:1] and row[0] in STAGES_AND_ALL] == [list(row) for row in table]
    assert len(table) == len(STAGES_AND_ALL)

    heads = calibrate[1:]
    heads[heads.index("--model") + 1], heads[heads.index("--out") + 1] = "demo", "demo.json"
    assert main(heads) == 0
    budgets = [str(int(word) // GROUP_SIZE) if word.isdigit() else word for word in plan[1:]]
    budgets[1], budgets[budgets.index("--out") + 1] = "demo.json", "demo-plan.json"
    assert main(budgets) == 0
    grouped = load_plan(Path(plan[plan.index("--out") + 1]))
    assert [row[::GROUP_SIZE] for row in grouped.treatments] == load_plan(Path("demo-plan.json")).treatments
