"""Quantised copies of tiny checkpoints, in the format of compressed-tensors, and what their weights stand for.

Owns the rounding and the packing of the decoder's linear layers; vision tower, projector and head stay as they are, as
in the checkpoints on the Hub. Knows nothing of plans or engines.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

_QUANTISED: Final = re.compile(r"language_model\.(model\.)?layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
_UNTOUCHED: Final = ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*", "re:.*lm_head.*"]

Tensors = dict[str, torch.Tensor]


def int8(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, 8 bits, a scale for each output; activations are rounded as they come."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / scale).round().clamp(-128, 127)
    return {name: rounded.to(torch.int8), f"{name}_scale": scale}, rounded * scale


def _compressed(form: str, weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": _UNTOUCHED,
    }


_INT: Final = {"type": "int", "symmetric": True}
SCHEMES: Final[dict[str, tuple[Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]], dict[str, Any]]]] = {
    "int8": (
        int8,
        _compressed(
            "int-quantized",
            {"num_bits": 8, "strategy": "channel", "dynamic": False, **_INT},
            {"num_bits": 8, "strategy": "token", "dynamic": True, **_INT},
        ),
    ),
}


def quantise(source: Path, quantised: Path, rounded: Path, scheme: str) -> None:
    """Write a checkpoint with quantised weights, and one with the weights that these stand for, unquantised.

    Parameters
    ----------
    source
        A checkpoint of one file.
    """
    change, config = SCHEMES[scheme]
    for folder in (quantised, rounded):
        shutil.copytree(source, folder)
    stored, meant = {}, {}
    for name, weight in load_file(source / "model.safetensors").items():
        if _QUANTISED.search(name):
            tensors, meant[name] = change(name, weight.float())
            stored |= tensors
        else:
            stored[name] = meant[name] = weight
    save_file(stored, quantised / "model.safetensors", {"format": "pt"})
    save_file(meant, rounded / "model.safetensors", {"format": "pt"})
    file = quantised / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": config}))
