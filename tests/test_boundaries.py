"""The dependency direction, read off fresh interpreters: importing these modules must not bring in those."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm", "matplotlib", "scipy")
ARROWS = {
    "profiles": (("profiles", "profiles.planning.planner", "profiles.store"), ("calibrate", "vhserve", *HEAVY)),
    "calibrate itself": (("calibrate", "calibrate.models.registry"), ("vhserve", *HEAVY)),
    "what calibrate is made of": (
        (
            "calibrate.scoring.calibration",
            "calibrate.analysis.report",
            "calibrate.analysis.measure",
            "calibrate.ablation.run",
            "calibrate.masking.treatments",
            "calibrate.demo",
            "calibrate.datasets.synthetic",
        ),
        ("vhserve", "vllm"),
    ),
    "the command line": (("vhserve", "vhserve.cli"), ("calibrate", *HEAVY)),
    "the load test": (
        ("vhserve.loadtest.run", "vhserve.loadtest.page", "vhserve.loadtest.tables"),
        ("locust", "gevent", "torch", "transformers", "vllm"),
    ),
    # What it imports is what each of its processes costs before it sends; asyncio's clients do not go with gevent.
    "what locust runs": (("vhserve.loadtest.locustfile",), ("calibrate", "openai", "httpx", *HEAVY)),
    "the engine": (("vhserve.engine.plugin", "vhserve.engine.models"), ("calibrate",)),
}

IMPORT = """
import importlib, sys
if "torch" in sys.argv[1]:  # torchvision must be made importable first; that is all that vhserve is wanted for
    from vhserve import compat
    compat.ensure_torchvision()
    for name in [name for name in sys.modules if name.split(".")[0] == "vhserve"]:
        del sys.modules[name]
for name in sys.argv[2:]:
    importlib.import_module(name)
print(*{name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("part", ARROWS)
def test_import_brings_in_nothing_forbidden(part: str) -> None:
    modules, forbidden = ARROWS[part]
    light = "torch" in forbidden
    command = [sys.executable, "-c", IMPORT, "light" if light else "with torch", *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & set(forbidden)
