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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    # Only as a command, which is free to depend on both packages, and before transformers is imported.
    from vhserve.compat import ensure_torchvision

    ensure_torchvision()

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from calibrate.demo.build import HIDDEN, build_model, patch_targets, save_model
from calibrate.demo.lessons import EOS_TOKEN, KINDS, NO_REGION, PREFIX, Batch, Lessons, block_mask, positions

LOG: Final = "train_log.jsonl"
STATE: Final = "state.pt"
_WARM_UP: Final = 200
_READ_OUT: Final = 18  # 17 kinds of cell, and whether it is outlined


@dataclass(frozen=True)
class Settings:
    """What a run is made of; it stands in the log's first line."""

    out: Path
    minutes: float
    steps: int
    stop_after: float
    batch: int
    align_steps: int
    curriculum: int
    learning_rate: float
    seed: int
    workers: int
    device: str
    compile: bool
    log_every: int
    save_every: int


class Trainer:
    """Model, optimiser and progress of one run.

    Steps below `align_steps` align; the rest teach. The learning rate of teaching falls with progress: the share of
    `steps` done, or of `minutes` spent where `steps` is 0.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        self.model = build_model(settings.seed)
        nn.Module.to(self.model, self.device)
        self.read_out = nn.Linear(HIDDEN, _READ_OUT).to(self.device)
        self.targets = patch_targets(self.model.model.language_model.embed_tokens.weight.detach()).clone()
        self.mask = block_mask().to(self.device)[None, None]
        self.positions = positions().to(self.device)[None]
        decoder = self.model.model.language_model
        self.decode = torch.compile(decoder, dynamic=False) if settings.compile else decoder
        self.looked_up = torch.zeros(())
        """Share of the last step's regions whose words knew what lies there."""
        self.step = 0
        self.seconds = 0.0
        self.optimizer = self._optimizer()

    def progress(self) -> float:
        """Share of the teaching done, 0 to 1."""
        s = self.settings
        taught = (self.step - s.align_steps) / (s.steps - s.align_steps) if s.steps else self.seconds / (60 * s.minutes)
        return min(1.0, max(0.0, taught))

    def rate(self) -> float:
        """Learning rate of the step to come: a warm-up, then a half cosine down to zero over the progress."""
        taught = self.step - self.settings.align_steps
        if taught < 0:
            return 2e-3 * min(1.0, (self.step + 1) / 50) * (1 - 0.9 * self.step / self.settings.align_steps)
        return (
            self.settings.learning_rate
            * min(1.0, (taught + 1) / _WARM_UP)
            * 0.5
            * (1 + math.cos(math.pi * self.progress()))
        )

    def train_step(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """One step; returns the loss and which answers were right: shape `(b, 8)`, or `(b, 144)` when aligning."""
        batch = Batch(*(x.to(self.device, non_blocking=True) for x in batch))
        if self.step == self.settings.align_steps:
            self.optimizer = self._optimizer()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        # Processors without bfloat16 units are slower with it.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, right = self._align(batch) if self.step < self.settings.align_steps else self._teach(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learning(), 1.0)
        self.optimizer.step()
        self.step += 1
        return loss.detach(), right

    def save(self) -> None:
        """Write the state that `resume` reads, whole or not at all."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "read_out": self.read_out.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        path = self.settings.out / STATE
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def resume(self) -> bool:
        """Go on from a saved state; false where there is none."""
        path = self.settings.out / STATE
        if not path.exists():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.read_out.load_state_dict(state["read_out"])
        # A state saved between the two phases still holds the optimiser of the first.
        aligned = self.step > self.settings.align_steps
        self.optimizer = self._optimizer(aligned)
        self.optimizer.load_state_dict(state["optimizer"])
        return True

    def _align(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self._project(self._see(batch.pixels)).float()
        outlined = F.one_hot(batch.outlined + 1, PREFIX)[:, 1:]
        place = torch.arange(PREFIX - 1, device=self.device)
        read = self.read_out(patches).float()
        loss = 5 * F.mse_loss(patches, self.targets[outlined, batch.cells, place])
        loss = loss + F.cross_entropy(read[..., :-1].flatten(0, 1), batch.cells.flatten())
        loss = loss + F.binary_cross_entropy_with_logits(read[..., -1], outlined.float())
        return loss, (read[..., :-1].argmax(-1) == batch.cells) & ((read[..., -1] > 0) == (outlined == 1))

    def _teach(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            seen = self._see(batch.pixels)
        words = self.model.model.language_model.embed_tokens(batch.tokens)
        patches = self._project(seen).to(words.dtype)
        inputs = torch.cat([words[:, :1], patches, words[:, PREFIX:]], dim=1)
        hidden = self.decode(
            inputs_embeds=inputs, attention_mask=self.mask, position_ids=self.positions, use_cache=False
        ).last_hidden_state
        rows = torch.arange(len(hidden), device=self.device)[:, None]
        logits = self.model.lm_head(hidden[rows, batch.ends]).float()
        after = self.model.lm_head(hidden[rows, batch.ends + 1]).float().flatten(0, 1)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.answers.flatten())
        # An answer about a region needs two looks: the region's word at the picture, and the last word at the
        # region's. Neither is learned before the other, unless the first is asked for by itself until it stands.
        looked_up = self.read_out(hidden[rows, batch.regions]).float()[..., :-1].flatten(0, 1)
        loss = loss + (1 - self.progress()) * F.cross_entropy(looked_up, batch.found.flatten(), ignore_index=NO_REGION)
        loss = loss + 0.1 * F.cross_entropy(after, torch.full_like(batch.answers.flatten(), EOS_TOKEN))
        asked = batch.found.flatten() != NO_REGION
        self.looked_up = ((looked_up.argmax(-1) == batch.found.flatten()) & asked).sum() / asked.sum()
        return loss, logits.argmax(-1) == batch.answers

    def _see(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.model.model.vision_tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]

    def _project(self, seen: torch.Tensor) -> torch.Tensor:
        return self.model.model.multi_modal_projector(seen)

    def _learning(self, aligned: bool | None = None) -> list[nn.Parameter]:
        inner = self.model.model
        if self.step >= self.settings.align_steps if aligned is None else aligned:
            learners: list[nn.Module] = [
                inner.multi_modal_projector,
                inner.language_model,
                self.model.lm_head,
                self.read_out,
            ]
        else:
            learners = [inner.vision_tower, inner.multi_modal_projector, self.read_out]
        return [p for module in learners for p in module.parameters()]

    def _optimizer(self, aligned: bool | None = None) -> torch.optim.AdamW:
        weights = self._learning(aligned)
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": 0.05},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.95), fused=True)


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
