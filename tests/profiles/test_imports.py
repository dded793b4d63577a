"""`profiles` is the contract: importing all of it brings in no model library, and neither of the other packages."""

import pkgutil
import subprocess
import sys

import profiles

FORBIDDEN = {"torch", "transformers", "vllm", "safetensors", "huggingface_hub", "scipy", "calibrate", "vhserve"}


def test_imports_stay_light() -> None:
    modules = [f"profiles.{module.name}" for module in pkgutil.iter_modules(profiles.__path__)]
    assert len(modules) > 10
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"numpy", "pydantic"} <= loaded
    assert not loaded & FORBIDDEN
