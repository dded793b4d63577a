"""A release of vLLM that has a build for CUDA alone, put together for CPUs in a folder of its own.

Its Python is that of its wheel, which names itself a CPU build as vLLM's own do; compiled operators are those of the
CPU build that is installed. With the folder in front of `PYTHONPATH`, tests run on that release. What it calls
otherwise than these operators are declared fails there, and says nothing of the release.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from vllm_releases import Installed

LARGEST: Final = 20 << 20
"""Bytes of a file that is taken: programs beside the Python are larger."""


def put_together(version: str, folder: Path) -> None:
    """Fetch the wheel with pip, and write what of it a CPU needs.

    Raises
    ------
    FileExistsError
    subprocess.CalledProcessError
        pip has not found the wheel.
    """
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder) as fetched:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", fetched, f"vllm=={version}"], check=True)
        (wheel,) = Path(fetched).iterdir()
        with zipfile.ZipFile(wheel) as files:
            for file in files.infolist():
                if not file.filename.endswith(".so") and file.file_size < LARGEST:
                    files.extract(file, folder)
    stock, own = (folder / f"vllm-{name}.dist-info" for name in (version, f"{version}+cpu"))
    stock.rename(own)
    described = (own / "METADATA").read_text(encoding="utf-8")
    (own / "METADATA").write_text(
        described.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n", 1), encoding="utf-8"
    )
    for operators in (Installed().folder / "vllm").glob("_C*.so"):
        shutil.copy(operators, folder / "vllm")


if __name__ == "__main__":
    put_together(sys.argv[1], Path(sys.argv[2]))
