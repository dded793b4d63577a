"""A tiny LoRA adapter in PEFT's files, the same model with the adapter merged, and an engine's answers with it.

Knows nothing of plans.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from engine_host import Round, ask
from exactness import PROMPTS
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES

RANK: Final = 8
ALPHA: Final = 16
_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
_ADAPTED: Final = re.compile(rf"(?!.*vis)(.*?)(layers\.\d+\.\w+\.({'|'.join(_TARGETS)}))\.weight$")
"""Decoders' weights: those of vision towers say `vision` or `visual`."""
_EXPERTS: Final = re.compile(r"(?!.*vis)(.*?)(layers\.\d+\.mlp\.experts)\.(gate_up_proj|down_proj)$")
"""Weights of all experts of a layer, as published: (experts, inputs, outputs)."""


def make_adapter(source: Path, adapter: Path, merged: Path) -> None:
    """Write an adapter of random weights for a checkpoint of one file, and a checkpoint with it merged."""
    generator, tensors = torch.Generator().manual_seed(7), {}
    shutil.copytree(source, merged)
    adapter.mkdir()
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if found := _ADAPTED.match(name):
            a = torch.randn(RANK, weight.shape[1], generator=generator) * weight.shape[1] ** -0.5
            b = torch.randn(weight.shape[0], RANK, generator=generator) * RANK**-0.5 * 0.3
            weights[name] = weight + ALPHA / RANK * b @ a
            decoder = "text_model" if "text_model" in found.group(1) else "language_model"
            stem = f"base_model.model.model.{decoder}.{found.group(2)}"  # as transformers' modules are called
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
        elif found := _EXPERTS.match(name):
            experts, inputs, outputs = weight.shape
            a = torch.randn(experts, RANK, inputs, generator=generator) * inputs**-0.5
            b = torch.randn(experts, outputs, RANK, generator=generator) * RANK**-0.5 * 0.3
            weights[name] = weight + ALPHA / RANK * (b @ a).transpose(1, 2)
            # PEFT wraps the parameters of a module one in the other, and has the experts' ranks side by side.
            inner = ".base_layer" if found.group(3) == "gate_up_proj" else ""
            stem = f"base_model.model.model.language_model.{found.group(2)}{inner}"
            tensors[f"{stem}.lora_A.weight"] = a.flatten(0, 1)
            tensors[f"{stem}.lora_B.weight"] = b.permute(1, 2, 0).flatten(1).contiguous()
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(_TARGETS),
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "base_model_name_or_path": str(source),
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))


def rounds_for(folder: Path) -> tuple[Round]:
    """What a model is asked: the usual prompts, or its family's where the folder is called like one.

    Pictures are large enough for whole blocks of image tokens.
    """
    if folder.name not in FAMILIES:
        return (Round(PROMPTS, tokens=4),)
    asked = FAMILIES[folder.name].prompts
    return (Round(tuple(replace(one, image_size=(2 * one.image_size[0], 2 * one.image_size[1])) for one in asked), 3),)


def answers_with_adapter(engine: Any) -> Any:
    """Of a job's probe: answers to `rounds_for` it with the adapter that lies beside the engine's model."""
    from vllm.lora.request import LoRARequest

    folder = Path(engine.llm_engine.vllm_config.model_config.model)
    (asked,) = rounds_for(folder)
    return ask(engine, asked, lora_request=LoRARequest("adapter", 1, str(folder.parent / "adapter")))
