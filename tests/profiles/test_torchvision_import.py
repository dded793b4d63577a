"""Making torchvision importable, in fresh processes: that it works, can be repeated, and leaves a right build alone."""

import subprocess
import sys

import pytest

ENSURE = "from profiles.torchvision_import import ensure_torchvision as ensure\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_imports_that_failed_work_after_it():
    out = run(
        ENSURE + "first, second = ensure(), ensure()\n"
        "import torch, torchvision.transforms.v2\n"
        "import transformers.models.llava.processing_llava\n"
        "from torchvision.transforms import functional as F\n"
        "print(first == second, tuple(F.resize(torch.zeros(3, 8, 6), [4, 3]).shape))"
    )
    assert out == "True (3, 4, 3)"


def test_it_is_needed_exactly_where_it_acts():
    broken = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, timeout=120).returncode
    assert run(ENSURE + "print(ensure())") == str(broken != 0)


@pytest.mark.parametrize("name", ["_C.so", "_C_stable.so"])  # the second from torchvision 0.29 on
def test_it_leaves_a_build_whose_operators_load_alone(name: str):
    # Stood in for by a package whose operator library is one of torch's own.
    out = run(
        "import pathlib, sys, tempfile, torch\n"
        "root = pathlib.Path(tempfile.mkdtemp()); package = root / 'torchvision'; package.mkdir()\n"
        "(package / '__init__.py').write_text('')\n"
        "library = sorted((pathlib.Path(torch.__file__).parent / 'lib').glob('libc10.*'))[0]\n"
        f"(package / {name!r}).symlink_to(library); sys.path.insert(0, str(root))\n"
        + ENSURE
        + "print(ensure(), hasattr(torch.ops.torchvision, 'nms'))"
    )
    assert out == "False False"


@pytest.mark.parametrize(
    ("body", "hidden"), [("raise OSError('no such library')", True), ("from . import part", False)]
)
def test_only_a_package_that_cannot_be_imported_is_hidden(body: str, hidden: bool):
    out = run(
        "import importlib.util, pathlib, sys, tempfile\n"
        "root = pathlib.Path(tempfile.mkdtemp()); package = root / 'oddity'; package.mkdir()\n"
        f"(package / '__init__.py').write_text('from . import part\\n' + {body!r}); (package / 'part.py').touch()\n"
        "sys.path.insert(0, str(root))\n"
        "from profiles.torchvision_import import hide_if_broken\n"
        "print(hide_if_broken('oddity'), hide_if_broken('oddity'), importlib.util.find_spec('oddity') is None)\n"
        "print('oddity.part' in sys.modules, hide_if_broken('never_installed'))"
    )
    assert out.split() == [str(hidden)] * 3 + [str(not hidden), "False"]


def test_importing_the_module_is_cheap():
    heavy = "('torch', 'torchvision', 'transformers', 'vllm')"
    out = run(f"import profiles.torchvision_import, sys; print([name for name in {heavy} if name in sys.modules])")
    assert out == "[]"
