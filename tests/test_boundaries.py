"""The dependency direction, read off a fresh interpreter: importing A must not bring in B."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "vllm", "matplotlib", "scipy")
ARROWS = [
    ("profiles", ("calibrate", "vhserve", *HEAVY)),
    ("profiles.planner", ("calibrate", "vhserve", *HEAVY)),
    ("profiles.store", ("calibrate", "vhserve", *HEAVY)),
    ("calibrate", ("vhserve", *HEAVY)),
    ("calibrate.calibration", ("vhserve", "vllm")),
    ("calibrate.ablation", ("vhserve", "vllm")),
    ("calibrate.treatments", ("vhserve", "vllm")),
    ("vhserve", ("calibrate", *HEAVY)),
    ("vhserve.cli", ("calibrate", *HEAVY)),
    ("vhserve.engine.plugin", ("calibrate",)),
    ("vhserve.engine.surgery", ("calibrate",)),
]


@pytest.mark.parametrize(("module", "forbidden"), ARROWS, ids=[module for module, _ in ARROWS])
def test_import_brings_in_nothing_forbidden(module: str, forbidden: tuple[str, ...]) -> None:
    code = (
        "import sys, importlib\n"
        "if sys.argv[1].startswith(('calibrate.', 'vhserve.engine')):\n"
        "    from vhserve import compat; compat.ensure_torchvision()\n"
        "    for name in [n for n in sys.modules if n.split('.')[0] == 'vhserve']: del sys.modules[name]\n"
        "importlib.import_module(sys.argv[1])\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & set(forbidden)
