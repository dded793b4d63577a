"""What packages publish: `__all__` names every module, or the names listed here; a change of it is deliberate."""

import importlib
import pkgutil
from pathlib import Path

import pytest
from import_graph import PACKAGES

ROOT = Path(__file__).parents[1]

NAMES = {
    "calibrate.datasets": [
        "BENCHMARKS",
        "DATASETS",
        "Benchmark",
        "Dataset",
        "DividedDataset",
        "Sample",
        "check_name",
        "open_dataset",
    ],
    "calibrate.datasets.synthetic": ["FAMILIES", "REPLIES", "make_sample", "samples"],
    "calibrate.scoring.scorers": ["SCORERS", "active_scorers", "register"],
    "profiles.treatments": [
        "ALL_BLOCKS",
        "EVICT",
        "EVICT_TO",
        "FULL",
        "NO_BLOCKS",
        "PHASES",
        "REMOVED",
        "TEXT_ONLY",
        "THINNED",
        "TREATMENTS",
        "ImageBlocks",
        "Phase",
        "Treatment",
        "budgeted",
    ],
}
"""Of packages that publish names: a registry, or a small surface over private files."""

BESIDE_MODULES = {"calibrate.demo": {"MODEL_DIR"}, "vhserve": {"STARTED", "__version__"}}
LEFT_OUT = {"vhserve.loadtest": {"locustfile"}}  # importing it imports locust, which patches the standard library


def packages() -> list[str]:
    found = [path.parent.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("__init__.py")]
    return sorted(".".join(path.parts) for path in found)


@pytest.mark.parametrize("name", packages())
def test_a_package_says_what_it_owns_and_pins_its_names(name: str) -> None:
    package = importlib.import_module(name)
    assert "not know" in (package.__doc__ or "")
    if name in NAMES:
        assert package.__all__ == NAMES[name]
        return
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    expected = modules - LEFT_OUT.get(name, set()) | BESIDE_MODULES.get(name, set())
    assert set(package.__all__) == expected
    assert len(package.__all__) == len(expected)


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for top in PACKAGES for path in (ROOT / top).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
