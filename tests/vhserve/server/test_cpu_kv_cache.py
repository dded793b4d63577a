"""The KV cache that a server on CPUs takes: sensible, enough for one request, and the user's where there is one."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from calibrate.demo import MODEL_DIR
from vhserve.server import cpu_kv_cache
from vhserve.server.cpu_kv_cache import GIB, available_memory, choose, longest_request


def arguments(**given: Any) -> Namespace:
    defaults: dict[str, Any] = {
        "kv_cache_memory_bytes": None,
        "num_gpu_blocks_override": None,
        "gpu_memory_utilization": 0.92,
        "data_parallel_size": 1,
        "max_model_len": None,
        "dtype": "auto",
    }
    return Namespace(**defaults | given)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


@pytest.mark.parametrize(("available", "chosen"), [(2 * GIB, GIB), (8 * GIB, 2 * GIB), (500 * GIB, 4 * GIB)])
def test_a_quarter_of_what_is_available_within_bounds(
    available: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kv_cache, "available_memory", lambda: available)
    config, here = AutoConfig.from_pretrained(MODEL_DIR), arguments()
    said = choose(here, config)
    assert here.kv_cache_memory_bytes == chosen
    assert said is not None
    assert f"{chosen / GIB:.1f} GiB; set another with --kv-cache-memory-bytes, or VLLM_CPU_KVCACHE_SPACE" in said
    twice = arguments(data_parallel_size=2)
    assert "for each engine" in (choose(twice, config) or "")
    assert twice.kv_cache_memory_bytes == chosen // 2


def test_a_request_of_the_greatest_length_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kv_cache, "available_memory", lambda: 8 * GIB)
    config = AutoConfig.from_pretrained(MODEL_DIR)
    per_token = 2 * 12 * 8 * 32  # keys and values of the demo model's heads
    assert longest_request(arguments(), config) == int(2048 * per_token * 2 * 1.1)
    assert longest_request(arguments(dtype="float32", max_model_len=512), config) == int(512 * per_token * 4 * 1.1)
    assert longest_request(arguments(max_model_len=-1), config) == 0  # vLLM fits the length to the cache
    long = arguments(max_model_len=1 << 20)
    choose(long, config)
    assert long.kv_cache_memory_bytes == longest_request(long, config) > 4 * GIB


@pytest.mark.parametrize(
    "given", [{"kv_cache_memory_bytes": 5}, {"num_gpu_blocks_override": 9}, {"gpu_memory_utilization": 0.5}]
)
def test_what_the_user_sets_stays(given: dict[str, Any]) -> None:
    here = arguments(**given)
    assert choose(here, None) is None
    assert here == arguments(**given)


def test_the_variable_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert choose(arguments(), None) is None


def test_vllm_s_default_is_known() -> None:
    from vllm.config.cache import CacheConfig

    assert CacheConfig.__dataclass_fields__["gpu_memory_utilization"].default.default == 0.92


def test_a_container_s_limit_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n")
    assert available_memory(meminfo, tmp_path / "none") == 8_000_000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    for limit, available in (("max\n", 8_000_000 * 1024), ("5000\n", 4000), ("500\n", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert available_memory(meminfo, tmp_path) == available
    assert available_memory() > 0
