"""What a plan should compute: transformers, with the same heads masked, on what an engine was asked and said.

Masks where the engine leaves out (`calibrate.masking`), so the two share no code that could be wrong in both.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from engine_host import BLOCK, IMAGE_TOKEN, Answer, EnginePrompt, image
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from calibrate.masking.treatments import plan_treated
from profiles.fingerprint import model_revision
from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan


class Oracle:
    """A transformers model in float32, and its processor."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(path)

    @torch.no_grad()
    def log_probs(
        self, prompt: EnginePrompt, answer: Answer, plan: PruningPlan | None, *, replies: bool = True
    ) -> torch.Tensor:
        """Log-probabilities for each token of the reply, shape (tokens, vocabulary); of the whole model without a plan.

        An image token in the reply, which transformers would take for the place of a picture, is the last one. Without
        `replies` the reply is computed as more of the prompt.
        """
        pictures = [image(seed, prompt.image_size) for seed in prompt.images]
        # Text in a list: Pixtral's processor takes nothing else.
        inputs = self.processor(text=[prompt.text], images=pictures or None, return_tensors="pt")
        prompt_ids = inputs.pop("input_ids")
        assert prompt_ids[0].tolist() == answer.prompt_ids, "the two sides read the prompt differently"
        said = [*answer.reply_ids, IMAGE_TOKEN]
        ids = torch.tensor([answer.prompt_ids + said[: said.index(IMAGE_TOKEN)]])
        reply = ids.shape[1] - prompt_ids.shape[1]
        # What says something of each token says 0 of the reply's: that it is text.
        by_token = {key: one for key, one in inputs.items() if one.shape == prompt_ids.shape}
        given = dict(inputs) | {key: torch.nn.functional.pad(one, (0, reply)) for key, one in by_token.items()}
        given |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        treating: AbstractContextManager[object] = nullcontext()
        if plan is not None:
            lengths = [len(answer.prompt_ids) if replies else ids.shape[1]]
            counts = [[self.image_tokens(picture) for picture in pictures]]
            treating = plan_treated(self.model, plan, block_size=BLOCK, prompt_lengths=lengths, images=counts)
        with treating:
            logits = self.model(**given).logits[0]
        return logits[len(answer.prompt_ids) - 1 :][: len(answer.reply_ids)].log_softmax(-1)

    def image_tokens(self, picture: Image.Image) -> int:
        """Image tokens of one picture, by the processor, which is given it alone."""
        ids = self.processor(text=[self.processor.image_token], images=[picture])["input_ids"][0]
        return list(ids).count(self.model.config.image_token_id)

    def difference(
        self, prompt: EnginePrompt, answer: Answer, plan: PruningPlan | None, *, replies: bool = True
    ) -> float:
        """Largest difference in log-probability between an engine's answer and what the plan should compute."""
        expected = self.log_probs(prompt, answer, plan, replies=replies)
        assert len(answer.log_probs) == len(answer.reply_ids) >= len(expected) > 0
        return max(
            abs(expected[step, token].item() - given)
            for step, row in enumerate(answer.log_probs[: len(expected)])
            for token, given in row.items()
        )


@dataclass(frozen=True)
class TinyModel:
    """A checkpoint, what a plan for it says of it, and the oracle that was made of it."""

    path: Path
    geometry: ModelGeometry
    architecture: str = "LlavaForConditionalGeneration"

    @cached_property
    def ref(self) -> ModelRef:
        return ModelRef(name=str(self.path), revision=model_revision(self.path), architecture=self.architecture)

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.path)
