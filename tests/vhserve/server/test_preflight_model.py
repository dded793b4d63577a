"""Models and plans that cannot be served are one line and exit code 2, before vLLM or torch is imported.

Every case runs through the real command, `vhserve.cli.main`; all in one process, so that a run costs one start-up.
"""

import json
import shutil
from pathlib import Path

import pytest
from broken_models import BROKEN, change_config, overwrite
from command_host import Command
from oracle import TinyModel

from profiles.fingerprint import model_revision
from profiles.store import load_plan
from vhserve.commands.served_model import compare_revision


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_model(
    defect: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    breakage, saying = BROKEN[defect]
    folder = shutil.copytree(models["gqa"].path, tmp_path / "model")
    breakage(folder)
    is_quantised = "quantised" in saying  # which vLLM may serve, with a plan too, but not sliced
    surgery = ["--surgery", "slice"] if is_quantised else []
    command.refuses("serve", folder, "--plan", plan_of_removed, *surgery, "--port", "0", saying=[*saying, str(folder)])
    if not is_quantised:
        command.refuses("serve", folder, "--port", "0", saying=[*saying, str(folder)])


def test_plans_of_other_models(
    command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    command.refuses(
        "serve", models["mha"].path, "--plan", plan_of_removed, "--port", "0", saying=["layers 4", "layers 6"]
    )
    folder = shutil.copytree(models["gqa"].path, tmp_path / "model")
    change_config({"architectures": ["KimiVLForConditionalGeneration"]})(folder)
    command.refuses("serve", folder, "--plan", plan_of_removed, "--port", "0", saying=["KimiVL"])


UNREADABLE = {
    "a later version": (lambda plan: plan.update(version=2), ["version", "2", "1"]),
    "a treatment of another stride": (
        lambda plan: plan["treatments"][0].__setitem__(0, "evict:3"),
        ["evict:3", "evict:4"],
    ),
    "a field of another release": (lambda plan: plan["selection"].update(evict_3=1), ["evict_3"]),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_plans_that_this_release_cannot_read(
    case: str, command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    change, saying = UNREADABLE[case]
    change(plan := json.loads(plan_of_removed.read_text()))
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    words = ["serve", models["gqa"].path, "--plan", tmp_path / "plan.json", "--port", "0"]
    command.refuses(*words, saying=[*saying, str(tmp_path / "plan.json")])


def test_weights_that_are_not_the_plan_s(
    command: Command,
    models: dict[str, TinyModel],
    plan_of_removed: Path,
    tmp_path: Path,
) -> None:
    """One byte in the middle of a file, which the digest of earlier releases does not cover."""
    folder = shutil.copytree(models["gqa"].path, tmp_path / "model")
    old = model_revision(folder, like="sha256:")
    weights = folder / "model.safetensors"
    middle = weights.stat().st_size // 2
    overwrite(weights.name, middle, bytes([weights.read_bytes()[middle] ^ 255]))(folder)
    words = ["serve", folder, "--plan", plan_of_removed, "--port", "0"]
    command.refuses(*words, saying=[models["gqa"].ref.revision, model_revision(folder)])

    plan = load_plan(plan_of_removed)
    said, kind = compare_revision(plan, str(plan_of_removed), str(folder), models["gqa"].path)
    assert f"{models['gqa'].ref.revision[:21]}, 1 weight file" in said
    assert kind == "note"
    before = plan.model_copy(update={"model": plan.model.model_copy(update={"revision": old})})
    said, kind = compare_revision(before, str(plan_of_removed), str(folder), folder)
    assert "calibrate again" in said
    assert kind == "warning"


@pytest.mark.parametrize("text", ["{% for x in %}", "{{ open", b"\xff\xfe\x00"])
def test_a_chat_template_that_is_none(
    text: str | bytes, command: Command, models: dict[str, TinyModel], plan_of_removed: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models["gqa"].path, tmp_path / "model")
    raw = text if isinstance(text, bytes) else text.encode()
    (folder / "chat_template.jinja").write_bytes(raw)
    command.refuses("serve", folder, "--plan", plan_of_removed, "--port", "0", saying=["chat_template.jinja"])
    (tmp_path / "other.jinja").write_bytes(raw)
    words = ["--plan", plan_of_removed, "--port", "0", "--chat-template", tmp_path / "other.jinja"]
    command.refuses("serve", models["gqa"].path, *words, saying=["other.jinja"])


def test_a_hub_model_out_of_reach(command: Command, plan_of_removed: Path) -> None:
    for name in ("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "owner/model"):
        command.refuses(
            "serve", name, "--plan", plan_of_removed, "--port", "0", saying=["cannot be reached", "hf download"]
        )
        assert command("serve", name, "--port", "0").seconds < 3
    command.refuses("serve", "llava-1.5-7B", "--port", "0", saying=["llava-1.5-7b"])


@pytest.mark.parametrize("defect", [defect for defect, (_, saying) in BROKEN.items() if "quantised" in saying])
def test_a_quantised_model_cannot_be_calibrated(
    defect: str, command: Command, models: dict[str, TinyModel], tmp_path: Path
) -> None:
    breakage, saying = BROKEN[defect]
    folder = shutil.copytree(models["gqa"].path, tmp_path / "model")
    breakage(folder)
    command.refuses("calibrate", "--model", folder, "--out", tmp_path / "p.json", saying=[*saying, "unquantised"])
    assert not (tmp_path / "p.json").exists()
