"""What a checkpoint's files say, read without transformers: compared with transformers, and with files that are cut."""

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaNextConfig, VipLlavaConfig
from transformers.models.vipllava.modeling_vipllava import VipLlavaMultiModalProjector

from calibrate.models.loading import LoadedModel
from profiles import transformers_config
from profiles.checkpoints.configuration import context_length, decoder_geometry
from profiles.checkpoints.expected_shapes import check_shapes, expected_shapes
from profiles.checkpoints.quantisation import find_quantisation
from profiles.checkpoints.safetensors_header import read_header
from profiles.checkpoints.weights import read_tensors
from profiles.errors import ModelBroken

TEXTS = [
    {"model_type": "llama"},
    {"model_type": "llama", "num_attention_heads": 64, "hidden_size": 8192, "num_key_value_heads": 8},
    {"model_type": "llama", "num_hidden_layers": 40, "num_attention_heads": 40, "hidden_size": 5120},
    {"model_type": "mistral"},
    {"model_type": "phi3"},
    {"model_type": "mistral", "head_dim": 160, "num_hidden_layers": 3},
    {"model_type": "qwen2", "num_hidden_layers": 24, "num_attention_heads": 14, "hidden_size": 896,
     "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 152000},
    None,
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("kind", [LlavaConfig, LlavaNextConfig, VipLlavaConfig])
def test_sizes_are_those_that_transformers_reads(text: dict[str, object] | None, kind: type, tmp_path: Path) -> None:
    """Defaults included, of which published configurations make use."""
    config = {"model_type": kind.model_type, **({"text_config": text} if text else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert decoder_geometry(config, 5) == transformers_config.decoder_geometry(theirs, 5)
    shapes, decoder = dict(expected_shapes(config)), theirs.get_text_config()
    assert shapes["layers.0.mlp.up_proj.weight"] == (decoder.intermediate_size, decoder.hidden_size)
    assert shapes["embed_tokens.weight"] == (decoder.vocab_size, decoder.hidden_size)


LENGTHS = [
    {"model_type": "llama"},
    {"model_type": "mistral"},
    {"max_position_embeddings": 4096},
    *(
        {"max_position_embeddings": 4096, name: {key: kind, "factor": 2.5, **rest}}
        for name, key in (("rope_parameters", "rope_type"), ("rope_scaling", "rope_type"), ("rope_scaling", "type"))
        for kind, rest in {
            "linear": {},
            "dynamic": {},
            "yarn": {"original_max_position_embeddings": 2048},
            "llama3": {
                "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 2048,
            },
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize("text", LENGTHS, ids=str)
def test_the_length_is_what_transformers_and_vllm_read(text: dict[str, object], tmp_path: Path) -> None:
    config = {"model_type": "llava", "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(config) == transformers_config.context_length(AutoConfig.from_pretrained(tmp_path))


@pytest.mark.parametrize("layers", [None, [-2, 5], -3])
def test_the_projector_of_vip_llava_takes_all_its_layers(layers: list[int] | int | None) -> None:
    vision = CLIPVisionConfig(hidden_size=48, num_attention_heads=3, num_hidden_layers=6)
    given = VipLlavaConfig(vision_config=vision, text_config=LlamaConfig(hidden_size=120, num_attention_heads=5))
    if layers is not None:
        given.vision_feature_layers = layers
    projector = VipLlavaMultiModalProjector(given)
    config = {key: value for key, value in given.to_dict().items() if layers is not None or "layers" not in key}
    shapes = dict(expected_shapes(config))
    assert shapes["multi_modal_projector.linear_1.weight"] == tuple(projector.linear_1.weight.shape)


def test_sizes_that_are_not_known_are_not_guessed() -> None:
    assert context_length({"text_config": {"model_type": "other"}}) is None
    assert context_length({"text_config": {"rope_parameters": {"factor": "wide", "rope_type": "linear"}}}) is None
    assert decoder_geometry({"text_config": {"model_type": "other", "num_hidden_layers": 2}}, 0) is None
    for broken in ({"num_hidden_layers": 0}, {"hidden_size": "wide"}, {"num_key_value_heads": 5}):
        with pytest.raises(ModelBroken):
            decoder_geometry({"text_config": broken}, 0)


def test_tensors_are_those_of_the_files(model: LoadedModel) -> None:
    """Of checkpoints as the Hub has them, and as transformers saves them (ViP-LLaVA)."""
    folder = Path(model.ref.name)
    theirs = {name: tuple(tensor.shape) for name, tensor in load_file(folder / "model.safetensors").items()}
    found = read_tensors(folder)
    assert {name: tensor.shape for name, tensor in found.items()} == theirs
    config = json.loads((folder / "config.json").read_text())
    check_shapes("it", config, found)
    assert find_quantisation(config) is None
    names = [name for name in found if ".layers.1.self_attn.v_proj" in name and "vision" not in name]
    with pytest.raises(ModelBroken, match=r"layers\.1\.self_attn\.v_proj"):
        check_shapes("it", config, {name: found[name] for name in found if name not in names})


def test_every_cut_and_every_changed_length_is_seen(llava_path: Path, tmp_path: Path, random_seed: int) -> None:
    raw = (llava_path / "model.safetensors").read_bytes()
    header = int.from_bytes(raw[:8], "little") + 8
    draw, file = random.Random(random_seed), tmp_path / "model.safetensors"
    cuts = [0, 1, 7, 8, 9, header - 1, header, len(raw) - 1, *(draw.randrange(len(raw)) for _ in range(20))]
    file.write_bytes(raw)
    for length in sorted(cuts, reverse=True):
        os.truncate(file, length)
        with pytest.raises(ModelBroken, match=r"cut off|damaged"):
            read_header(file)
    file.write_bytes(raw + b"\0")
    with pytest.raises(ModelBroken, match="too long"):
        read_header(file)
    good = read_header(llava_path / "model.safetensors")
    for _ in range(200):  # anything may stand in a header: it is refused, or read as tensors that fill the file
        changed = bytearray(raw[:header])
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(header)] = draw.randrange(256)
        file.write_bytes(changed)
        os.truncate(file, len(raw))  # tensors are not read
        with contextlib.suppress(ModelBroken):
            assert len(read_header(file)) <= len(good)


def test_two_files_and_their_index(llava_path: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = shutil.copytree(llava_path, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    place = {name: files[index % 2] for index, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({name: tensors[name] for name in tensors if place[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    (folder / "other.safetensors").write_bytes(b"not looked at, as the index does not name it")
    assert set(read_tensors(folder)) == set(tensors)
    place[min(place)] = "../elsewhere.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    with pytest.raises(ModelBroken, match="weight_map"):
        read_tensors(folder)


def test_pytorch_files_that_are_cut(tmp_path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(9)}, tmp_path / "pytorch_model.bin")
    assert read_tensors(tmp_path) == {}
    raw = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(raw[:-30])
    with pytest.raises(ModelBroken, match="cut off"):
        read_tensors(tmp_path)
