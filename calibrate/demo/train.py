"""Training the demo model: `python -m calibrate.demo.train --out DIR --minutes 8`, on a GPU or, for a trial, without.

First the vision tower and the projector are aligned with the word embeddings (which object lies where), then the
decoder learns to answer, with the tower frozen, helped at first with what lies in a region. State is saved as it
goes; the same command goes on where it stopped. Progress is JSON lines in `train_log.jsonl`. Knows no held-out
sample: `accuracy` measures those.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # Only as a command: a library leaves it to its program. It must come before transformers is imported.
    from profiles.torchvision_import import ensure_torchvision

    ensure_torchvision()

import torch
import transformers
from torch.utils.data import DataLoader

from calibrate.demo.build import save_model
from calibrate.demo.lessons import KINDS, Lessons
from calibrate.demo.trainer import Settings, Trainer

LOG: Final = "train_log.jsonl"


def train(settings: Settings) -> bool:
    """Train until done, or for `stop_after` seconds; returns whether it is done. The model is saved either way."""
    settings.out.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(settings)
    resumed = trainer.resume()
    _log(settings, {"resumed_at": trainer.step} if resumed else _header(settings))
    lessons = Lessons(settings.batch, settings.seed, settings.curriculum)
    loader = DataLoader(
        lessons,
        batch_size=None,
        sampler=_endless(trainer.step),
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        pin_memory=trainer.device.type == "cuda",
    )
    stop = settings.stop_after or math.inf
    begun: float | None = None
    families = torch.arange(len(KINDS), device=trainer.device)
    # Right and asked: kept on the device, so that no step waits for it.
    tally = torch.zeros(2, len(KINDS), device=trainer.device)
    for batch in loader:
        loss, correct = trainer.train_step(batch)
        # Starting is no training: the clock begins behind the first step of a process.
        now = time.monotonic()
        if begun is not None:
            trainer.seconds += now - begun
            stop -= now - begun
        begun = now
        if trainer.step > settings.align_steps:
            of = batch.kinds.to(trainer.device, non_blocking=True)[..., None] == families
            tally += torch.stack([(of & correct[..., None]).sum((0, 1)), of.sum((0, 1))])
        done = trainer.step >= settings.steps if settings.steps else trainer.seconds >= 60 * settings.minutes
        if trainer.step % settings.log_every == 0 or done:
            per_family = {k: round(r / n, 4) for k, r, n in zip(KINDS, *tally.tolist(), strict=True) if n}
            aligned = round(correct.float().mean().item(), 5)
            _log(
                settings,
                {
                    "step": trainer.step,
                    "phase": "align" if trainer.step <= settings.align_steps else "teach",
                    "loss": round(loss.item(), 4),
                    "rate": round(trainer.optimizer.param_groups[0]["lr"], 6),
                    "seconds": round(trainer.seconds, 1),
                    "looked_up": round(float(trainer.looked_up), 4),
                    "accuracy": per_family or aligned,
                },
            )
            tally.zero_()
        if done or stop <= 0:
            break
        if trainer.step % settings.save_every == 0:
            trainer.save()
    trainer.save()
    save_model(trainer.model, settings.out / "model")
    return done


def _endless(start: int) -> Iterator[int]:
    while True:
        yield start
        start += 1


def _header(settings: Settings) -> dict[str, Any]:
    on_gpu = settings.device == "cuda"
    return {
        "settings": {k: v for k, v in vars(settings).items() if k != "out"},
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _log(settings: Settings, line: dict[str, Any]) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    with (settings.out / LOG).open("a") as log:
        log.write(text + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m calibrate.demo.train", description="Train the demo model.")
    parser.add_argument("--out", type=Path, required=True, help="directory for state, log and the model")
    parser.add_argument("--minutes", type=float, default=8, help="minutes of training, start left out")
    parser.add_argument("--steps", type=int, default=0, help="steps in all, alignment included, instead of --minutes")
    parser.add_argument("--stop-after", type=float, default=0, help="stop after so many seconds, to go on later")
    parser.add_argument("--batch", type=int, default=256, help="pictures in a step, eight questions each")
    parser.add_argument("--align-steps", type=int, default=400, help="steps of alignment")
    parser.add_argument("--curriculum", type=int, default=1500, help="steps during which look-ups come more often")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=500)
    done = train(Settings(**vars(parser.parse_args())))
    if not done:
        print("stopped early; the same command goes on", flush=True)


if __name__ == "__main__":
    main()
