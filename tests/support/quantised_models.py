"""Quantised copies of tiny checkpoints, in the format of compressed-tensors, and what their weights stand for.

Owns the rounding and the packing of the decoder's linear layers; vision tower, projector and head stay as they are, as
in the checkpoints on the Hub. Knows nothing of plans or engines.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

_QUANTISED: Final = re.compile(r"(?!.*vis).*layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
_UNTOUCHED: Final = ["lm_head", "re:.*vis.*", "re:.*multi_modal_projector.*", "re:.*mlp1.*", "re:.*lm_head.*"]

_INT8: Final = {"num_bits": 8, "type": "int", "symmetric": True}
CONFIG: Final[dict[str, Any]] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**_INT8, "strategy": "channel", "dynamic": False},
            "input_activations": {**_INT8, "strategy": "token", "dynamic": True},
            "output_activations": None,
        }
    },
    "ignore": _UNTOUCHED,
}
"""Weights of 8 bits with a scale for each output; activations are rounded as they come."""


def quantise(source: Path, quantised: Path, rounded: Path) -> None:
    """Write a checkpoint with quantised weights, and one with the weights that these stand for, unquantised.

    Parameters
    ----------
    source
        A checkpoint of one file.
    """
    for folder in (quantised, rounded):
        shutil.copytree(source, folder)
    stored, meant = {}, {}
    for name, weight in load_file(source / "model.safetensors").items():
        stored[name] = meant[name] = weight
        if _QUANTISED.match(name):
            scale = weight.abs().amax(1, keepdim=True) / 127
            whole = (weight / scale).round().clamp(-128, 127)
            stored |= {name: whole.to(torch.int8), f"{name}_scale": scale}
            meant[name] = whole * scale
    save_file(stored, quantised / "model.safetensors", {"format": "pt"})
    save_file(meant, rounded / "model.safetensors", {"format": "pt"})
    file = quantised / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": CONFIG}))
