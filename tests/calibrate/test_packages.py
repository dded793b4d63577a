"""What packages of calibrate and the reports publish: `__all__` names every module, so that none is forgotten."""

import importlib
import pkgutil

import pytest

PACKAGES = ("ablation", "analysis", "demo", "models", "rankings", "stats")


@pytest.mark.parametrize("name", ["calibrate", *(f"calibrate.{one}" for one in PACKAGES), "vhserve.report"])
def test_a_package_names_its_modules(name: str) -> None:
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert package.__all__ == sorted(package.__all__)
    assert set(package.__all__) - {"MODEL_DIR"} == modules
    assert package.__doc__
    assert "not know" in package.__doc__
