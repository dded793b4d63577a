"""The dependency direction, read off fresh interpreters: importing these modules must not bring in those."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "vllm", "matplotlib", "scipy")
ARROWS = {
    "profiles": (
        ("profiles", "profiles.planning.planner", "profiles.store", "profiles.torchvision_import"),
        ("calibrate", "vhserve", *HEAVY),
    ),
    "calibrate itself": (("calibrate", "calibrate.models.registry"), ("vhserve", *HEAVY)),
    "what calibrate is made of": (
        (
            "calibrate.scoring.calibration",
            "calibrate.analysis.report",
            "calibrate.analysis.measure",
            "calibrate.ablation.run",
            "calibrate.masking.treatments",
            "calibrate.demo",
            "calibrate.demo.train",
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
if "torch" in sys.argv[1]:
    from profiles.torchvision_import import ensure_torchvision
    ensure_torchvision()
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


@pytest.mark.parametrize(
    ("package", "forbidden"), [("profiles", ("calibrate", "vhserve")), ("calibrate", ("vhserve",))]
)
def test_no_file_of_a_package_names_one_above_it(package: str, forbidden: tuple[str, ...]) -> None:
    """Imports inside functions and under `if __name__` included, which no import of the module shows."""
    for file in (Path(__file__).parents[1] / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & set(forbidden), file
