"""Tiny models, the engine host and what it was asked, shared by the tests of the engine and of the server."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_host import EngineHost
from oracle import TinyModel
from safetensors.torch import load_file, save_file
from tiny_models import make_tiny_llava, make_tiny_llava_next

from profiles.geometry import ModelGeometry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """`mha`: every query head has a KV head of its own; `gqa`: two query heads share one; `next`: LLaVA-1.6; `biased`:
    `gqa` with biases in its attention, in two files.
    """
    folder = tmp_path_factory.mktemp("models")
    sizes = {"head_size": 32, "hidden_size": 120}
    return {
        "mha": TinyModel(
            make_tiny_llava(folder / "mha", layers=6, query_heads=5),
            ModelGeometry(layers=6, query_heads=5, kv_heads=5, image_tokens=81, **sizes),
        ),
        "gqa": TinyModel(
            make_tiny_llava(folder / "gqa", layers=4, query_heads=6, kv_heads=3),
            ModelGeometry(layers=4, query_heads=6, kv_heads=3, image_tokens=81, **sizes),
        ),
        "next": TinyModel(
            make_tiny_llava_next(folder / "next", layers=3, query_heads=6, kv_heads=3),
            ModelGeometry(layers=3, query_heads=6, kv_heads=3, image_tokens=135, **sizes),
            "LlavaNextForConditionalGeneration",
        ),
        "biased": TinyModel(
            give_biases(make_tiny_llava(folder / "biased", layers=4, query_heads=6, kv_heads=3)),
            ModelGeometry(layers=4, query_heads=6, kv_heads=3, image_tokens=81, **sizes),
        ),
    }


def give_biases(path: Path) -> Path:
    """Add biases to the attention of a checkpoint, and spread its tensors over two files, every second one in each."""
    config = json.loads((path / "config.json").read_text())
    config["text_config"]["attention_bias"] = True
    (path / "config.json").write_text(json.dumps(config))
    tensors = load_file(path / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name, weight in list(tensors.items()):
        if "language_model" in name and ".self_attn." in name:
            tensors[name.replace(".weight", ".bias")] = 0.3 * torch.randn(len(weight), generator=generator)
    (path / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for index, file in enumerate(files):
        save_file({name: tensors[name] for name in sorted(tensors)[index::2]}, path / file, metadata={"format": "pt"})
    weight_map = {name: files[index % 2] for index, name in enumerate(sorted(tensors))}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


@pytest.fixture(scope="session")
def vllm_environment() -> dict[str, str]:
    """Environment of every process that starts vLLM: little memory, two threads, caches inside the checkout."""
    return {
        **os.environ,
        "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(ROOT / ".cache" / "inductor"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def engine_host(tmp_path_factory: pytest.TempPathFactory, vllm_environment: dict[str, str]) -> Iterator[EngineHost]:
    host = EngineHost(tmp_path_factory.mktemp("engines"), {**vllm_environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    yield host
    host.close()
