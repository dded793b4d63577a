"""`profiles` is the contract: importing all of it brings in no model library, and neither of the other packages."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import profiles

FORBIDDEN = {"torch", "transformers", "vllm", "safetensors", "huggingface_hub", "scipy", "calibrate", "vhserve"}


def module_names() -> list[str]:
    return [f"profiles.{module.name}" for module in pkgutil.iter_modules(profiles.__path__)]


def test_imports_stay_light() -> None:
    modules = module_names()
    assert len(modules) > 10
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"numpy", "pydantic"} <= loaded
    assert not loaded & FORBIDDEN


def test_examples_in_docstrings() -> None:
    results = [doctest.testmod(importlib.import_module(name)) for name in module_names()]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 3


def test_every_module_opens_by_saying_what_it_owns() -> None:
    for name in module_names():
        lines = (importlib.import_module(name).__doc__ or "").strip().splitlines()
        assert 2 <= len(lines) <= 10, name
