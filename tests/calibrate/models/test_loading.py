"""Loading: what a loaded model says of itself, and what a broken one gets."""

import json
import shutil

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig

from calibrate.errors import DeviceUnavailable, ImageBackendMissing
from calibrate.models.loading import geometry_of, load_model
from profiles.errors import ModelBroken
from profiles.fingerprint import model_revision
from profiles.geometry import ModelGeometry


def test_what_it_says_of_itself(llava, llava_path):
    assert llava.ref.name == str(llava_path)
    assert llava.ref.revision == model_revision(llava_path)
    assert llava.ref_like("sha256:0").revision == model_revision(llava_path, like="sha256:0") != llava.ref.revision
    assert llava.ref_like("sha256v2:0") == llava.ref
    assert llava.ref.architecture == "LlavaForConditionalGeneration"
    assert llava.geometry == ModelGeometry(
        layers=4, query_heads=6, kv_heads=2, head_size=32, hidden_size=120, image_tokens=81
    )
    assert [module.layer_idx for module in llava.attentions] == [0, 1, 2, 3]
    assert llava.dtype == llava.model.dtype == torch.float32
    assert not llava.model.training
    assert not any(weight.requires_grad for weight in llava.model.parameters())


def test_image_tokens_of_tiles(llava_next):
    # 5 x 5 for the whole image, and 10 rows of 10 with an end-of-row token each.
    assert llava_next.geometry.image_tokens == 25 + 10 * 11


def test_vip_llava_counts_one_token_a_patch():
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14),
        text_config=LlamaConfig(num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4, hidden_size=64),
    )
    assert geometry_of(config).image_tokens == 576
    assert geometry_of(config).head_size == 8


def test_pictures_are_resized_by_torchvision_as_in_vllm(model):
    assert model.image_backend == "torchvision"


def test_without_torchvision_a_model_is_refused(llava_path, monkeypatch):
    from calibrate.models import loading

    monkeypatch.setattr(loading, "is_torchvision_available", lambda: False)
    with pytest.raises(ImageBackendMissing, match="pip install torchvision"):
        load_model(str(llava_path))


def test_a_processor_of_an_old_release_is_completed(llava, llava_path, tmp_path):
    from calibrate.datasets import open_dataset
    from calibrate.models.prompts import make_prompt

    folder = shutil.copytree(llava_path, tmp_path / "model")
    path = folder / "processor_config.json"
    kept = json.loads(path.read_text())
    for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        del kept[name]
    path.write_text(json.dumps(kept))
    (sample,) = open_dataset("synthetic", samples=1, seed=0)
    old = make_prompt(load_model(str(folder), "float32", "cpu"), sample)
    assert torch.equal(old.tokens, make_prompt(llava, sample).tokens)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(llava_path, dtype):
    loaded = load_model(str(llava_path), dtype, "cpu")
    assert {weight.dtype for weight in loaded.model.parameters()} == {getattr(torch, dtype)} == {loaded.dtype}


def test_auto_is_float32_on_cpus(llava_path, tmp_path):
    folder = shutil.copytree(llava_path, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    assert load_model(str(folder), "auto", "cpu").dtype == torch.float32


@pytest.mark.parametrize("device", ["no-such-device", "cuda:99", "meta meta"])
def test_a_device_that_is_not_there(llava_path, device):
    with pytest.raises(DeviceUnavailable, match="expected auto, cpu, cuda"):
        load_model(str(llava_path), "float32", device)


@pytest.mark.parametrize("defect", ["no weights", "cut weights", "one weight less", "wrong shape", "no processor"])
def test_broken_models_get_one_line(llava_path, tmp_path, defect):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(llava_path, tmp_path / "model")
    weights = folder / "model.safetensors"
    if defect == "no weights":
        weights.unlink()
    elif defect == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif defect == "no processor":
        for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
    else:
        tensors = load_file(weights)
        name = "language_model.model.layers.2.self_attn.o_proj.weight"
        tensor = tensors.pop(name)
        if defect == "wrong shape":
            tensors[name] = tensor[:, 32:].contiguous()
        save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelBroken) as error:
        load_model(str(folder), "float32", "cpu")
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
