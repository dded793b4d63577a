"""Tiny models, the engine host and what it was asked, shared by the tests of the engine and of the server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_host import EngineHost
from oracle import TinyModel
from tiny_models import make_tiny_llava, make_tiny_llava_next

from profiles.geometry import ModelGeometry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """`mha`: every query head has a KV head of its own; `gqa`: two query heads share one; `next`: LLaVA-1.6."""
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
    }


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
