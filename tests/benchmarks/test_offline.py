"""What a process that starts vLLM is given on a machine where vhserve is a folder and nothing is installed."""

import importlib.metadata
import os
from importlib.metadata import distributions
from pathlib import Path

import pytest

from benchmarks import offline
from vhserve.engine.plugin import register


@pytest.mark.vllm
def test_vllm_finds_the_plugin_where_vhserve_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "entry_points", lambda group: importlib.metadata.EntryPoints())
    paths = offline.environment(tmp_path)["PYTHONPATH"].split(os.pathsep)
    assert paths[0] == str(offline.ROOT)
    (found,) = (point for one in distributions(path=paths[-1:]) for point in one.entry_points)
    assert (found.group, found.load()) == ("vllm.general_plugins", register)


def test_flashinfer_samples_only_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    assert offline.environment(tmp_path)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    assert offline.environment(tmp_path)["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER")
    (tmp_path / "flashinfer.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in offline.environment(tmp_path)
