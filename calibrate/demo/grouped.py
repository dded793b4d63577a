"""The demo model as a grouped-query model that computes the same: `python -m calibrate.demo.grouped FOLDER`.

Two query heads share each KV head. Both look where the demo's head looks; one writes the even entries of its output
into the residual stream, and the other the odd ones. So the two differ, and together they do what the demo's head
does. Rewrites files; knows nothing of training.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from calibrate.demo import MODEL_DIR

GROUP_SIZE: Final = 2
"""Query heads of a KV head."""


def grouped_queries(query: torch.Tensor, output: torch.Tensor, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of a layer whose every head became the two query heads of a KV group.

    Parameters
    ----------
    query, output
        `q_proj`, shape `(heads * head_size, hidden)`, and `o_proj`, shape `(hidden, heads * head_size)`.

    Returns
    -------
    The same with `GROUP_SIZE` times the heads: the rows of a query head twice; the columns of an output once in all,
    column `i` of a head in head `i % GROUP_SIZE` of its group, and zeros in the other.
    """
    hidden = query.shape[1]
    rows = query.reshape(-1, head_size, hidden).repeat_interleave(GROUP_SIZE, 0)
    writes = torch.arange(head_size) % GROUP_SIZE == torch.arange(GROUP_SIZE)[:, None]
    columns = output.reshape(hidden, -1, 1, head_size) * writes.to(output.dtype)
    return rows.flatten(0, 1).contiguous(), columns.flatten(1).contiguous()


def save_grouped(folder: Path) -> None:
    """Write the demo model with two query heads for each KV head, and its processor, into a new or empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in MODEL_DIR.glob("*"):
        if file.suffix in {".json", ".jinja"} and file.name != "accuracy.json":
            shutil.copyfile(file, folder / file.name)
    config: dict[str, Any] = json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
    text["num_attention_heads"] *= GROUP_SIZE
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = load_file(MODEL_DIR / "model.safetensors")
    for name in [name for name in weights if name.endswith("self_attn.q_proj.weight") and "language_model" in name]:
        other = name.replace("q_proj", "o_proj")
        weights[name], weights[other] = grouped_queries(weights[name], weights[other], text["head_dim"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m calibrate.demo.grouped",
        description="Write the demo model as a grouped-query model that computes the same.",
    )
    parser.add_argument("folder", type=Path, help="folder for the model, new or empty")
    folder: Path = parser.parse_args().folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder} is there and not empty; give a new folder")
    save_grouped(folder)


if __name__ == "__main__":
    main()
