"""Model names: the table, what a name stands for, and the one line that a wrong one gets."""

import json
import subprocess
import sys

import pytest
import torch
from published_models import family_of, published_config, published_processor
from pydantic_settings import CliApp
from tiny_families import FAMILIES
from tiny_families.parts import IMAGE
from transformers import AutoModelForImageTextToText

from calibrate.errors import ModelOffline, UnknownModel, UnsupportedModel
from calibrate.models.criterion import check_heads
from calibrate.models.decoder import decoder_layers
from calibrate.models.image_tokens import USUAL_PICTURE
from calibrate.models.known import KNOWN
from calibrate.models.loading import geometry_of
from calibrate.models.registry import find, resolve
from profiles.errors import ModelBroken
from vhserve.commands.models import Models

PAPER = {
    "llava-1.5-7b", "llava-1.5-13b", "llava-1.6-7b", "llava-1.6-13b", "llava-1.6-mistral-7b",
    "vip-llava-7b", "vip-llava-13b", "vip-llava-llama-3-8b", "vip-llava-phi-3-3.8b",
}  # fmt: skip


def line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_table_has_the_nine_models_of_the_paper_and_the_demo_and_every_tested_family():
    assert PAPER | {"demo"} <= KNOWN.keys()
    assert {family_of(alias) for alias in KNOWN} - {None} == FAMILIES.keys()
    assert len({model.hub for model in KNOWN.values()}) == len(KNOWN)


@pytest.mark.parametrize("model", KNOWN.values(), ids=lambda model: model.alias)
def test_every_row_is_of_one_piece(model):
    assert model.query_heads % model.kv_heads == 0
    assert bool(model.note) != model.loadable
    assert (model.alias == "demo") != (model.hub.count("/") == 1)


BILLIONS = {
    "llava-1.5-7b": 7.1, "llava-1.5-13b": 13.4, "llava-1.6-7b": 7.1, "llava-1.6-13b": 13.4, "llava-1.6-mistral-7b": 7.6,
    "vip-llava-7b": 7.1, "vip-llava-13b": 13.4, "vip-llava-llama-3-8b": 8.4, "vip-llava-phi-3-3.8b": 4.1,
    "qwen3-vl-8b": 8.77, "internvl3.5-1b": 1.1, "internvl3.5-2b": 2.3, "internvl3.5-4b": 4.7, "internvl3.5-8b": 8.5,
}  # fmt: skip
"""Parameters of those whose number is published, vision tower included."""


@pytest.mark.parametrize("alias", [alias for alias in KNOWN if alias != "demo"])
def test_every_model_builds_with_its_real_size(alias, tmp_path):
    """On the meta device, because weights can't be had here: the table says what transformers builds."""
    row = KNOWN[alias]
    config = published_config(alias)
    is_current = family_of(alias) is not None
    processor = published_processor(alias, tmp_path) if is_current else None
    if is_current:
        config.image_token_id = IMAGE
        assert row.picture == USUAL_PICTURE
    geometry = geometry_of(config, processor)
    for field in ("layers", "query_heads", "kv_heads", "head_size", "hidden_size", "image_tokens"):
        assert getattr(geometry, field) == getattr(row, field), field
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    check_heads(alias, model)
    attentions = [layer.self_attn for layer in decoder_layers(model)]
    assert len(attentions) == row.layers
    for attention in attentions:
        assert attention.o_proj.in_features == row.query_heads * row.head_size
    if alias in BILLIONS:
        parameters = sum(weight.numel() for weight in model.parameters())
        assert parameters / 1e9 == pytest.approx(BILLIONS[alias], rel=0.04)
    assert row.architecture in {None, type(model).__name__}


@pytest.mark.parametrize("alias", [alias for alias, row in KNOWN.items() if row.loadable and family_of(alias)])
def test_the_table_s_way_of_surgery_is_one_that_its_family_is_tested_with(alias):
    """tests/vhserve/engine/test_families.py slices each family's tiny checkpoint, and fails where it cannot."""
    family = FAMILIES[family_of(alias)]
    assert KNOWN[alias].surgery == "slice"
    assert family.architecture == KNOWN[alias].architecture


def test_a_folder_resolves_to_itself(llava_path):
    assert resolve(str(llava_path)) == str(llava_path)
    assert find(str(llava_path)).architecture == "LlavaForConditionalGeneration"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lava-1.5-7b", "llava-1.5-7b"), ("llava-hf/llava-1.5-7b/extra", "llava-1.5-7b"), ("nothing like it", "vhserve")],
)
def test_an_unknown_name_gets_the_close_ones(name, hint):
    with pytest.raises(UnknownModel) as error:
        resolve(name)
    assert name in line(error)
    assert hint in line(error)


def test_a_hub_model_while_offline(tmp_path):
    code = "from calibrate.models.registry import resolve; resolve('llava-1.6-7b')"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{ModelOffline.__module__}.{ModelOffline.__name__}: ")
    assert "llava-hf/llava-v1.6-vicuna-7b-hf is not in the local cache and HF_HUB_OFFLINE is set" in last
    assert "hf download llava-hf/llava-v1.6-vicuna-7b-hf" in last


def test_a_hub_model_in_the_cache_resolves_to_its_id(tmp_path):
    commit, name = "0" * 40, "owner/model"
    folder = tmp_path / "models--owner--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / "config.json").write_text('{"model_type": "llava"}')
    code = f"from calibrate.models.registry import find; found = find('{name}'); print(found.source, found.folder.name)"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [name, commit], done.stderr


@pytest.mark.parametrize("alias", [alias for alias, model in KNOWN.items() if not model.loadable])
def test_models_in_llavas_own_format_are_refused(alias):
    with pytest.raises(UnsupportedModel, match="LLaVA's own format"):
        resolve(alias)


def test_another_architecture_is_named_with_what_is_missing(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    with pytest.raises(UnsupportedModel) as error:
        resolve(str(tmp_path))
    assert "BertForMaskedLM" in line(error)
    assert "vision_config" in line(error)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_configuration(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelBroken) as error:
        resolve(str(tmp_path))
    assert "config.json" in line(error)


def test_a_file_is_no_model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(UnknownModel, match="is a file"):
        resolve(str(path))


def test_finding_a_model_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from calibrate.models.registry import find\n"
        "try: find('no such model')\nexcept Exception as error: print(type(error).__name__)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["UnknownModel", "set()"], done.stderr


def test_the_command_shows_every_model(capsys):
    CliApp.run(Models, cli_args=["--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["alias"] for row in rows] == list(KNOWN)
    own_format = {"vip-llava-llama-3-8b", "vip-llava-phi-3-3.8b"}
    assert {row["alias"] for row in rows if not row["serve"]} == own_format
    CliApp.run(Models, cli_args=[])
    table = capsys.readouterr().out
    assert all(model.alias in table and model.origin in table for model in KNOWN.values())
    assert max(map(len, table.splitlines()[: len(KNOWN) + 1])) <= 80
