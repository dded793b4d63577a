"""Accuracy of a saved demo model per question family: `python -m calibrate.demo.accuracy --model DIR --samples 1000`.

Takes the path that users take: files from disk, the real processor and chat template, transformers' own model, and
the likeliest of all words as the answer. Knows nothing of training.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Only as a command: a library leaves it to its program. It must come before transformers is imported.
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()

import torch
import transformers
from torch import nn
from transformers import LlavaProcessor

from calibrate.datasets.synthetic import FAMILIES, make_sample
from calibrate.demo import MODEL_DIR
from calibrate.demo.build import load_model
from calibrate.stats.intervals import wilson


def prompt(processor: LlavaProcessor, question: str) -> str:
    """One picture and one question, through the chat template."""
    content: Any = [{"type": "image"}, {"type": "text", "text": question}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@torch.inference_mode()
def measure(
    path: Path, samples: int, dtype: str = "float32", device: str = "cpu", batch: int = 50, seed: int = 0
) -> dict[str, Any]:
    """Answer held-out samples of every family.

    Parameters
    ----------
    path
        Model directory.
    samples
        Samples of each family.
    dtype
        Type that weights are converted to and computed in, `float32` or `bfloat16`.
    device
        `cpu` or `cuda`.
    batch
        Prompts at once.
    seed
        Seed of the held-out samples.

    Returns
    -------
    Settings, versions, and per family how many were right, the accuracy and its 95% Wilson interval.
    """
    processor = LlavaProcessor.from_pretrained(path)
    model = load_model(path, dtype=getattr(torch, dtype))
    nn.Module.to(model, device)
    begun, families = time.monotonic(), {}
    for family in FAMILIES:
        right = 0
        for start in range(0, samples, batch):
            asked = [make_sample(family, i, "held_out", seed) for i in range(start, min(start + batch, samples))]
            inputs = processor(
                text=[prompt(processor, s.question) for s in asked],
                images=[s.image for s in asked],
                padding=True,
                return_tensors="pt",
            ).to(device)
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            likeliest = model(**inputs, logits_to_keep=1).logits[:, -1].argmax(-1)
            answers = processor.tokenizer.convert_ids_to_tokens(likeliest.tolist())
            right += sum(answer == s.answer for answer, s in zip(answers, asked, strict=True))
        low, high = wilson(right, samples)
        families[family] = {
            "right": right,
            "samples": samples,
            "accuracy": right / samples,
            "wilson_95": [round(low, 4), round(high, 4)],
        }
    return {
        "split": "held_out",
        "seed": seed,
        "dtype": dtype,
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seconds": round(time.monotonic() - begun, 1),
        "families": families,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m calibrate.demo.accuracy", description="Accuracy of a demo model.")
    parser.add_argument("--model", type=Path, default=MODEL_DIR, help="model directory; the shipped one by default")
    parser.add_argument("--samples", type=int, default=1000, help="held-out samples of each family")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    result = measure(args.model, args.samples, args.dtype, args.device, args.batch, args.seed)
    for family, row in result["families"].items():
        low, high = row["wilson_95"]
        print(f"{family:16} {row['accuracy']:7.1%}  ({low:.1%} to {high:.1%}, n = {row['samples']})")
    print(f"{result['seconds']} s, {result['dtype']} on {result['device']}")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
