"""Chat templates in the commands that measure: which one is taken, what is said of it, and what profiles record."""

import json
import shutil

import pytest

from calibrate.models.chat_template import FALLBACKS
from profiles.chat_template import TemplateRef, template_digest
from profiles.store import load_plan, load_profile
from vhserve.cli import main

OTHER = "{{ bos_token }}{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def folders(llava_path, tmp_path_factory):
    """The model with its template where the processor looks, where only the tokenizer looks, and without."""
    made = {name: tmp_path_factory.mktemp(name) / "model" for name in ("processor", "tokenizer", "none")}
    for name, folder in made.items():
        shutil.copytree(llava_path, folder)
        if name != "processor":
            template = (folder / "chat_template.jinja").read_text()
            (folder / "chat_template.jinja").unlink()
        if name == "tokenizer":
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    return made


@pytest.fixture
def calibrate(folders, tmp_path, capsys):
    def run(name, *flags):
        out = tmp_path / f"{name}{len(flags)}.json"
        words = ["--model", str(folders[name]), "--samples", "3", "--no-effects", "--device", "cpu", "--out", str(out)]
        code = main(["calibrate", *words, *flags])
        return code, out, capsys.readouterr().err

    return run


def told(said):
    """Lines about where the chat template comes from; a model that is never right gets another that names it."""
    return [line for line in said.splitlines() if "chat template" in line and "answers none" not in line]


def test_a_template_of_the_tokenizer_is_used(calibrate, folders):
    (_, one, said), (_, other, said_too) = calibrate("processor"), calibrate("tokenizer")
    first, second = load_profile(one), load_profile(other)
    assert first.rankings == second.rankings
    digest = template_digest((folders["processor"] / "chat_template.jinja").read_text())
    for profile, source in ((first, "processor"), (second, "tokenizer")):
        found = TemplateRef.of_settings(profile.settings)
        assert found == TemplateRef(digest=digest, source=source, content_format="openai")
    assert not told(said + said_too)


def test_a_plan_carries_the_template_and_the_image_backend_of_its_profile(calibrate, tmp_path, capsys):
    _, profile, _ = calibrate("tokenizer")
    assert main(["plan", str(profile), "--remove", "3", "--out", str(tmp_path / "plan.json")]) == 0
    plan = load_plan(tmp_path / "plan.json")
    assert plan.chat_template == TemplateRef.of_settings(load_profile(profile).settings)
    assert plan.chat_template.source == "tokenizer"
    assert plan.image_backend == load_profile(profile).settings["image_backend"] == "torchvision"


def test_a_fallback_is_said_and_recorded(calibrate):
    code, out, said = calibrate("none")
    assert code == 0
    (line,) = [line for line in said.splitlines() if "chat template" in line]
    assert line.startswith("vhserve: warning: model ")
    assert f"--chat-template {FALLBACKS / 'llava.jinja'}" in line
    profile = load_profile(out)
    assert profile.settings["chat_template_source"] == "fallback"
    code, same, said = calibrate("none", "--chat-template", str(FALLBACKS / "llava.jinja"))
    assert code == 0
    assert not told(said)
    assert load_profile(same).rankings == profile.rankings
    assert load_profile(same).settings["chat_template_source"] == "given"


def test_a_template_that_is_given(calibrate, tmp_path, capsys):
    path = tmp_path / "other.jinja"
    path.write_text(OTHER)
    code, out, said = calibrate("processor", "--chat-template", str(path))
    assert code == 0
    assert not told(said)
    found = TemplateRef.of_settings(load_profile(out).settings)
    assert found == TemplateRef(digest=template_digest(OTHER), source="given", content_format="string")
    ablate = ["ablate", str(out), "--samples", "3", "-k", "3", "--draws", "1", "--rows", "short"]
    assert main([*ablate, "--out", str(tmp_path / "ablation.json")]) == 0
    assert "was made with chat template sha256:" in capsys.readouterr().err
    assert main([*ablate, "--out", str(tmp_path / "same.json"), "--chat-template", str(path)]) == 0
    assert not told(capsys.readouterr().err)


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_a_template_that_cannot_be_read(calibrate, tmp_path, name):
    code, out, said = calibrate("processor", "--chat-template", str(tmp_path / name))
    assert code == 2
    assert said.count("\n") == 1
    assert not out.exists()
