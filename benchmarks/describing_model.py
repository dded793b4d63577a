"""Teaches the demo model to answer in several tokens: `python -m benchmarks.describing_model --out DIR`.

Owns the lesson and the loop: the family `describe` of the synthetic world ("red circle 3"), eight questions to a
picture, from random streams that no sample has. The picture's rows are computed without a gradient. Goes on from its
saved state when it is started again. The shipped model stays as it is; this one is for measuring what replies of
several tokens lose. Does not know heads.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any, Final

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from transformers import DynamicCache, LlavaForConditionalGeneration  # noqa: E402

from calibrate.datasets.synthetic.draw import draw  # noqa: E402
from calibrate.datasets.synthetic.questions import describe_question  # noqa: E402
from calibrate.datasets.synthetic.scene import make_scene  # noqa: E402
from calibrate.datasets.synthetic.vocabulary import CELLS  # noqa: E402
from calibrate.demo import MODEL_DIR  # noqa: E402
from calibrate.demo.build import ASSISTANT, EOS, IMAGE, TOKENS, USER, save_model  # noqa: E402
from calibrate.demo.lessons import encode  # noqa: E402

QUESTIONS: Final = 8
ANSWER: Final = 4  # three words and the reply's end
STREAM: Final = 3  # first word of a lesson's seed; samples have 1 and 2


def lesson(step: int, pictures: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels, uint8, `(pictures, 96, 96, 3)`, and tokens behind each picture, `(pictures * QUESTIONS, n)`."""
    rng = np.random.default_rng([STREAM, step])
    pixels, rows = [], []
    for _ in range(pictures):
        scene = make_scene(rng)
        pixels.append(draw(scene))
        for kind in rng.choice(np.flatnonzero(scene.counts), QUESTIONS):
            asked = describe_question(scene, int(rng.choice(scene.cells_of(*divmod(int(kind), 4)))))
            rows.append([*encode(asked.text), TOKENS[ASSISTANT], *encode(asked.answer), TOKENS[EOS]])
    return torch.from_numpy(np.stack(pixels)), torch.tensor(rows)


def losses(model: Any, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of answers, and which questions were answered right in every token."""
    decoder = model.model.language_model
    with torch.no_grad():
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        ids = torch.tensor([[TOKENS[USER], *[TOKENS[IMAGE]] * CELLS]]).expand(len(pixels), -1)
        cache = DynamicCache()
        model.model(input_ids=ids, pixel_values=images, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(QUESTIONS)
    hidden = decoder(inputs_embeds=decoder.embed_tokens(tokens[:, :-1]), past_key_values=cache).last_hidden_state
    logits, wanted = model.lm_head(hidden[:, -ANSWER:]), tokens[:, -ANSWER:]
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten()), (logits.argmax(-1) == wanted).all(1)


def teach(out: Path, steps: int, pictures: int, rate: float) -> None:
    """Train, saving state and model as it goes."""
    out.mkdir(parents=True, exist_ok=True)
    model = LlavaForConditionalGeneration.from_pretrained(MODEL_DIR, dtype=torch.float32)
    learners = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    optimizer = torch.optim.AdamW(learners, lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    state, step, seconds = out / "state.pt", 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, seconds = saved["step"], saved["seconds"]
    right: list[float] = []
    while step < steps:
        began = time.monotonic()
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss, correct = losses(model, *lesson(step, pictures))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learners, 1.0)
        optimizer.step()
        step, seconds = step + 1, seconds + time.monotonic() - began
        right.append(correct.float().mean().item())
        if step % 10 == 0 or step == steps:
            line = {"step": step, "loss": round(loss.item(), 4), "right": round(float(np.mean(right)), 3)}
            print(json.dumps(line | {"seconds": round(seconds, 1)}), flush=True)
            right.clear()
        if step % 20 == 0 or step == steps:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
            torch.save(saved, state.with_suffix(".tmp"))
            os.replace(state.with_suffix(".tmp"), state)
            save_model(model, out / "model")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.describing_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the state and the model")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=4, help="pictures in a step, eight questions each")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teach(options.out, options.steps, options.pictures, options.learning_rate)


if __name__ == "__main__":
    main()
