"""Processes that vLLM starts: what they import, and that they end with the process that started them.

Does not know what they serve. Importing it is cheap.
"""

import ctypes
import functools
import logging
import os
import signal
import sys
from typing import Final

from profiles.torchvision_import import ensure_torchvision, was_mended

MENDED: Final = "VHSERVE_IMPORTS_MENDED"
"""Environment variable that makes the processes which a server starts call `ensure_torchvision` as well."""

PARENT: Final = "VHSERVE_PARENT_PROCESS"
"""Environment variable with the process whose children are to end with it."""

_PR_SET_PDEATHSIG: Final = 1


def mend_child_processes() -> None:
    """Let the processes that vLLM starts from this one import torchvision, if this one had to be mended.

    Symptom
        A server's engine process ends with `operator torchvision::nms does not exist`.
    Cause
        vLLM on CPUs starts its processes by `spawn`. Such a process imports the main module of its parent, and then
        vLLM, before vLLM calls any plugin. So the parent sets an environment variable, which `vhserve.cli` reads when
        it is imported, by `mend_child_process`.
    Removal
        With `ensure_torchvision`.
    """
    if was_mended():
        os.environ[MENDED] = "1"


def mend_child_process() -> None:
    """Do in a process that a server starts what its parent asked for before; cheap elsewhere."""
    if os.environ.get(MENDED):
        ensure_torchvision()
    parent = int(os.environ.get(PARENT, 0))
    if parent == os.getppid():
        _end_with_parent()
        end_child_processes_with_this_one()
    elif parent and not _exists(parent):  # it ended before this process could ask to end with it
        os._exit(1)


def end_child_processes_with_this_one() -> None:
    """Let the processes that vLLM starts from this one, and those that they start, be killed when their parent ends.

    Symptom
        An API server that is killed leaves its engine and workers behind, with all their memory, for ever.
    Cause
        vLLM's processes end their children when they end in order. A child looks for its parent only while it starts;
        after that an engine waits for requests, whoever would send them.
    Removal
        An engine process ends when the process that started it is gone.

    They hear of it as `mend_child_process` hears of torchvision; forked ones by a hook. Linux only. The kernel sends
    the signal when the *thread* ends that started the process: vLLM starts its processes from main threads.
    """
    _kernel()  # a forked process must not be the first to load it
    os.environ[PARENT] = str(os.getpid())
    os.register_at_fork(after_in_child=_end_with_parent)


@functools.cache
def _kernel() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _end_with_parent() -> None:
    parent, os.environ[PARENT] = int(os.environ[PARENT]), str(os.getpid())
    if sys.platform == "linux":
        _kernel().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(1)


def mend_model_inspection() -> None:
    """Let vLLM look at model classes in a subprocess that can import torchvision.

    Symptom
        `Model architectures ['LlavaForConditionalGeneration'] failed to be inspected`.
    Cause
        vLLM imports a model class for the first time in `python -m vllm.model_executor.models.registry`, which imports
        torchvision before it calls any plugin. The command is a module constant without a setting.
    Removal
        With `ensure_torchvision`.

    Does nothing unless `ensure_torchvision` had to mend something in this process.
    """
    if not was_mended():
        return

    from vllm.model_executor.models import registry

    code = (
        "from profiles.torchvision_import import ensure_torchvision; ensure_torchvision(); "
        "from vllm.model_executor.models.registry import _run; _run()"
    )
    registry._SUBPROCESS_COMMAND = [sys.executable, "-c", code]


def quiet_vllm_imports() -> None:
    """Keep what vLLM logs while it is imported off stderr; its own logging set-up replaces this.

    Symptom
        `Triton is installed, but doesn't include CPU backend` on stderr, before a one-line error of ours.
    Cause
        vLLM sets up its logging after its imports; until then Python prints warnings to stderr as a last resort.
    Removal
        vLLM sets up its logging before its first message.
    """
    logging.getLogger("vllm").addHandler(logging.NullHandler())
