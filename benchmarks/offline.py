"""Makes vLLM run without a connection, without flashinfer, and find vhserve where it is not installed.

Where vhserve lies on PYTHONPATH alone, writes the one file that vLLM looks for, a distribution's entry points, into a
folder for PYTHONPATH. Not needed, and not used, where `pip install` has put vhserve into the environment.
"""

import importlib.util
import os
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUP = "vllm.general_plugins"


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with what a process that starts vLLM needs to find vhserve.

    Parameters
    ----------
    folder
        Where to write the entry points when vhserve is not installed.
    """
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if not any(point.value.startswith("vhserve.") for point in entry_points(group=GROUP)):
        info = folder / "vhserve-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vhserve\nVersion: 0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nvhserve = vhserve.engine.plugin:register\n")
        paths.append(str(folder))
    without = {} if importlib.util.find_spec("flashinfer") else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {
        **without,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
