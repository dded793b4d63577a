"""One training step of the demo model, in either phase, and the state that a run goes on from.

Owns the losses, the optimiser, the learning rate and the checkpoint. Does not know where batches come from, how
progress is logged or when to stop (`train`), nor any held-out sample (`accuracy`).
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F

from calibrate.demo.build import HIDDEN, build_model, patch_targets
from calibrate.demo.lessons import EOS_TOKEN, NO_REGION, PREFIX, TrainingBatch, block_mask, positions

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

    def train_step(self, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """One step; returns the loss and which answers were right: shape `(b, 8)`, or `(b, 144)` when aligning."""
        batch = TrainingBatch(*(x.to(self.device, non_blocking=True) for x in batch))
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

    def _align(self, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
        patches = self._project(self._see(batch.pixels)).float()
        outlined = F.one_hot(batch.outlined + 1, PREFIX)[:, 1:]
        place = torch.arange(PREFIX - 1, device=self.device)
        read = self.read_out(patches).float()
        loss = 5 * F.mse_loss(patches, self.targets[outlined, batch.cells, place])
        loss = loss + F.cross_entropy(read[..., :-1].flatten(0, 1), batch.cells.flatten())
        loss = loss + F.binary_cross_entropy_with_logits(read[..., -1], outlined.float())
        return loss, (read[..., :-1].argmax(-1) == batch.cells) & ((read[..., -1] > 0) == (outlined == 1))

    def _teach(self, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
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
