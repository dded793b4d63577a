"""Quantised copies of tiny checkpoints, in the formats of compressed-tensors and GPTQ, and what their weights stand for.

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

GROUP: Final = 32
"""Inputs that share a scale where weights have four bits."""

_QUANTISED: Final = re.compile(r"language_model\.(model\.)?layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
_UNTOUCHED: Final = ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*", "re:.*lm_head.*"]

Tensors = dict[str, torch.Tensor]


def int8(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, 8 bits, a scale for each output; activations are rounded as they come."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    rounded = (weight / scale).round().clamp(-128, 127)
    return {name: rounded.to(torch.int8), f"{name}_scale": scale}, rounded * scale


def int4(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """compressed-tensors, 4 bits, a scale for each group of inputs."""
    rounded, scale = _four_bits(weight)
    packed = _pack(rounded + 8)
    tensors = {
        f"{name}_packed": packed,
        f"{name}_scale": scale,
        f"{name}_shape": torch.tensor(weight.shape, dtype=torch.int64),
    }
    return tensors, rounded * scale.repeat_interleave(GROUP, 1)


def gptq(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """GPTQ, 4 bits, symmetric, inputs in their order; tensors have inputs first."""
    rounded, scale = _four_bits(weight)
    stem, groups = name.removesuffix("weight"), weight.shape[1] // GROUP
    zeros = torch.full((groups, weight.shape[0]), 7)  # stored less one
    tensors = {
        f"{stem}qweight": _pack(rounded + 8).T.contiguous(),
        f"{stem}qzeros": _pack(zeros),
        f"{stem}scales": scale.T.contiguous(),
        f"{stem}g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }
    return tensors, rounded * scale.repeat_interleave(GROUP, 1)


def _four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights rounded to -8 … 7, and scales of shape (outputs, groups)."""
    grouped = weight.unflatten(1, (-1, GROUP))
    scale = grouped.abs().amax(2) / 7
    return (grouped / scale[..., None]).round().clamp(-8, 7).flatten(1), scale


def _pack(values: torch.Tensor) -> torch.Tensor:
    """Eight numbers of 0 … 15 along the last axis in one int32, the first in the lowest bits."""
    shifts = torch.arange(0, 32, 4)
    packed = (values.to(torch.int64).unflatten(-1, (-1, 8)) << shifts).sum(-1)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)


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
    "int4": (
        int4,
        _compressed(
            "pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": GROUP, "dynamic": False, **_INT}, None
        ),
    ),
    "gptq": (
        gptq,
        {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "desc_act": False,
            "sym": True,
            "lm_head": False,
            "modules_in_block_to_quantize": None,
        },
    ),
}


def quantise(source: Path, quantised: Path, rounded: Path, scheme: str) -> None:
    """Write a checkpoint with quantised weights, and one with the weights that these stand for, unquantised.

    Parameters
    ----------
    source
        A checkpoint of one file whose decoder's layers have inputs in whole groups.
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
