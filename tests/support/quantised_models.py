"""Quantised copies of tiny checkpoints, as compressed-tensors, GPTQ and AWQ write them, and what their weights mean.

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
_UNTOUCHED: Final = [
    "lm_head",
    "re:.*vis.*",
    "re:.*multi_modal_projector.*",
    "re:.*mlp1.*",
    "re:.*connector.*",
    "re:.*lm_head.*",
    "re:.*experts.*",
    "re:.*mlp.gate$",
]

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


_GROUP: Final = 32
"""Inputs that share a scale where weights have 4 bits."""
_AWQ_ORDER: Final = (0, 2, 4, 6, 1, 3, 5, 7)
"""Outputs of a word of 32 bits, lowest bits first, as AWQ's kernels read them."""

_LEFT_OUT: Final = ["lm_head", "visual", "vision_tower", "multi_modal_projector"]
FOUR_BITS: Final[dict[str, dict[str, Any]]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": False, "sym": True},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm"},
}
"""Of the decoder's layers alone: what neither names the vision tower's."""


def quantise(source: Path, quantised: Path, rounded: Path, scheme: str = "int8") -> None:
    """Write a checkpoint with quantised weights, and one with the weights that these stand for, unquantised.

    Parameters
    ----------
    source
        A checkpoint of one file.
    scheme
        "int8" (compressed-tensors, activations of 8 bits too), "gptq" or "awq" (weights of 4 bits).
    """
    for folder in (quantised, rounded):
        shutil.copytree(source, folder)
    stored, meant = {}, {}
    for name, weight in load_file(source / "model.safetensors").items():
        stored[name] = meant[name] = weight
        if _QUANTISED.match(name) and scheme != "int8":
            del stored[name]
            packed, meant[name] = _four_bits(weight, scheme)
            stored |= {f"{name.removesuffix('weight')}{part}": value for part, value in packed.items()}
        elif _QUANTISED.match(name):
            scale = weight.abs().amax(1, keepdim=True) / 127
            whole = (weight / scale).round().clamp(-128, 127)
            stored |= {name: whole.to(torch.int8), f"{name}_scale": scale}
            meant[name] = whole * scale
    save_file(stored, quantised / "model.safetensors", {"format": "pt"})
    save_file(meant, rounded / "model.safetensors", {"format": "pt"})
    file = quantised / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": _config(scheme)}))


def _config(scheme: str) -> dict[str, Any]:
    if scheme == "int8":
        return CONFIG
    left_out = {"modules_to_not_convert": _LEFT_OUT} if scheme == "awq" else {"dynamic": _gptq_left_out()}
    return FOUR_BITS[scheme] | left_out


def _gptq_left_out() -> dict[str, Any]:
    """GPTQModel's way to leave modules out: a minus in front of an expression for their names."""
    return {f"-:.*{name}.*": {} for name in _LEFT_OUT}


def _four_bits(weight: torch.Tensor, scheme: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Tensors of a weight (outputs, inputs), and the weight that they stand for."""
    grouped = weight.float().unflatten(1, (-1, _GROUP))
    scale = (grouped.abs().amax(2) / 7).half().float()  # (outputs, groups)
    whole = (grouped / scale[:, :, None]).round().clamp(-8, 7)
    meant = (whole * scale[:, :, None]).flatten(1)
    numbers = (whole.flatten(1).T + 8).to(torch.int64)  # (inputs, outputs), 0 to 15, 8 is zero
    groups, outputs = scale.shape[1], scale.shape[0]
    if scheme == "awq":
        packed = {
            "qweight": _packed(numbers.unflatten(1, (-1, 8))[:, :, _AWQ_ORDER]),
            "qzeros": _packed(torch.full((groups, outputs // 8, 8), 8)),
        }
    else:
        packed = {
            "qweight": _packed(numbers.unflatten(0, (-1, 8)).transpose(1, 2)),
            "qzeros": _packed(torch.full((groups, outputs // 8, 8), 7)),  # the format keeps one less
            "g_idx": torch.arange(numbers.shape[0], dtype=torch.int32) // _GROUP,
        }
    return packed | {"scales": scale.T.contiguous().half()}, meant.to(weight.dtype)


def _packed(numbers: torch.Tensor) -> torch.Tensor:
    """Eight numbers of 4 bits, the last axis, in a word of 32; lowest bits first."""
    words = (numbers << (4 * torch.arange(8))).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32).contiguous()
