"""A tiny LoRA adapter in PEFT's files, the same model with the adapter merged, and an engine's answers with it.

Knows nothing of plans.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

RANK: Final = 8
ALPHA: Final = 16
_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
_ADAPTED: Final = re.compile(rf"language_model\.(model\.)?(layers\.\d+\.\w+\.({'|'.join(_TARGETS)}))\.weight$")


def make_adapter(source: Path, adapter: Path, merged: Path) -> None:
    """Write an adapter of random weights for a checkpoint of one file, and a checkpoint with it merged."""
    generator, tensors = torch.Generator().manual_seed(7), {}
    shutil.copytree(source, merged)
    adapter.mkdir()
    weights = load_file(source / "model.safetensors")
    for name, weight in weights.items():
        if found := _ADAPTED.search(name):
            a = torch.randn(RANK, weight.shape[1], generator=generator) * weight.shape[1] ** -0.5
            b = torch.randn(weight.shape[0], RANK, generator=generator) * RANK**-0.5 * 0.3
            weights[name] = weight + ALPHA / RANK * b @ a
            stem = f"base_model.model.model.language_model.{found.group(2)}"
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
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


def answers_with_adapter(engine: Any) -> Any:
    """Of a job's probe: answers to the usual prompts with the adapter that lies beside the engine's model."""
    from engine_host import Round, ask
    from exactness import PROMPTS
    from vllm.lora.request import LoRARequest

    folder = Path(engine.llm_engine.vllm_config.model_config.model).parent / "adapter"
    return ask(engine, Round(PROMPTS, tokens=4), lora_request=LoRARequest("adapter", 1, str(folder)))
