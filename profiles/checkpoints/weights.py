"""Which files of a folder hold a checkpoint's weights, and whether they are all there and whole, by their headers.

Chooses them as vLLM and transformers do: safetensors, those that an index names where there is one, else PyTorch files.
Reads no tensor; whether values are damaged only a digest can say (`file_digests`).
"""

import zipfile
from pathlib import Path
from typing import Final

from profiles.checkpoints.configuration import read_json
from profiles.checkpoints.safetensors_header import Tensor, read_header
from profiles.errors import ModelBroken, ModelFilesMissing

SAFETENSORS: Final = "*.safetensors"
PYTORCH: Final = "*.bin"
INDICES: Final = {SAFETENSORS: "model.safetensors.index.json", PYTORCH: "pytorch_model.bin.index.json"}
_NO_WEIGHTS: Final = ("training_args.bin", "consolidated.safetensors", "optimizer.bin", "scheduler.bin")


def weight_files(folder: Path) -> list[Path]:
    """Files that are loaded, by name: those of the index, which may be missing, or those that are there."""
    for pattern, index in INDICES.items():
        if (folder / index).exists():
            return [folder / name for name in sorted(set(_weight_map(folder / index).values()))]
        if found := sorted(file for file in folder.glob(pattern) if file.name not in _NO_WEIGHTS):
            return found
    return []


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint, by name, after checking that every file of it is there and whole.

    Returns
    -------
    Empty where the weights are PyTorch files, of which only the outermost is checked.

    Raises
    ------
    ModelBroken
        There are no weights, a file is missing or damaged, or the index names a tensor that its file does not have.
    """
    files = weight_files(folder)
    if not files:
        raise ModelFilesMissing(
            f"{folder} has no weights",
            expected=f"{SAFETENSORS} or {PYTORCH} files",
            fix="give the folder that holds config.json and the weights, or fetch the model again",
        )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFilesMissing(
            f"{folder}: {missing[0]}{more} of {len(files)} weight files missing",
            expected="every file that the index names",
            fix="fetch or save the model again",
        )
    if files[0].suffix != ".safetensors":
        for file in files:
            _check_pytorch(file)
        return {}
    headers = {file.name: read_header(file) for file in files}
    index = folder / INDICES[SAFETENSORS]
    for tensor, holder in (_weight_map(index) if index.exists() else {}).items():
        if tensor not in headers[holder]:
            raise ModelBroken(
                f"{folder / holder} lacks {tensor}, which the index says is there",
                expected="index and weights of one checkpoint",
                fix="fetch or save the model again",
            )
    return {name: tensor for header in headers.values() for name, tensor in header.items()}


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(
        isinstance(file, str) and file == Path(file).name for file in found.values()
    ):
        raise ModelBroken(
            f"{index}: no weight_map of files in the same folder",
            expected="an index in transformers' format",
            fix="fetch or save the model again",
        )
    return found


def _check_pytorch(file: Path) -> None:
    """Refuse a cut-off PyTorch file: a zip archive ends with its directory. Files older than PyTorch 1.6 are none."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if not start or (start.startswith(b"PK") and not zipfile.is_zipfile(file)):
        raise ModelBroken(f"{file} is cut off", expected="a whole PyTorch file", fix="fetch or save the model again")
