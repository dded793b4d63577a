"""A run of the serving benchmark as on a GPU, with what stands in for one: capacity, prompts alone, and replies.

`device_arm` says what is in the arm. What of torch.cuda the benchmark itself asks is answered as an H200 would.
"""

import json
import os
from pathlib import Path

import device_engines
import pytest
import torch

from benchmarks import serving
from benchmarks.arm import Arm

SIZE = "--dtype float32 --layers 2 --heads 4 --hidden-size 256 --image-tokens 36 --text-tokens 12 --kv-gib 0.002"
LIMITS = "--block-size 32 --max-num-seqs 4 --max-num-batched-tokens 128 --gpu-memory 0.3"
TURNS = "--capacity --prefill 2 --concurrency 2 --requests 2 --output 3 --repeats 1"


@pytest.mark.long
@pytest.mark.vllm
def test_a_run_as_on_a_gpu(
    tmp_path: Path,
    vllm_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {**vllm_environment, **device_engines.ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE")  # stronger than an arm's settings
    support = str(Path(device_engines.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([support, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(Arm, "module", "device_arm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    arm = "text-only:0.75/exit:1"
    words = [*f"{SIZE} {LIMITS} {TURNS}".split(), "--arms", arm, "--out", str(tmp_path / "run")]
    assert serving.main(words) == 0, capsys.readouterr().out
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["machine"]["device"] == "NVIDIA H200"
    assert report["arms"][arm]["async"]
    (held,) = report["capacity"]
    assert held["requests"] == 4
    assert [one["requests"] for one in report["prefill"]] == [2]
    (turn,) = report["turns"]
    assert (turn["output_tokens"], turn["concurrency"]) == (6, 2)
    (row,) = report["overview"]
    assert (row["held"], row["best_at"]) == (4, 2)
    assert "Capturing CUDA graphs" in (tmp_path / "run_arm0.log").read_text()
    assert f"{arm} is up after" in capsys.readouterr().out
