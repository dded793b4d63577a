"""What a plan should compute: transformers, with the same heads masked, on what an engine was asked and said.

Masks where the engine leaves out (`calibrate.masking`), so the two share no code that could be wrong in both.
"""

import itertools
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from engine_host import BLOCK, Answer
from engine_prompts import IMAGE_TOKEN, EnginePrompt, image, video
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from calibrate.masking.treatments import plan_treated
from profiles.fingerprint import model_revision
from profiles.geometry import ModelGeometry, ModelRef
from profiles.pruning_plan import PruningPlan


class Oracle:
    """A transformers model in float32, and its processor."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(path)
        config = self.model.config
        self.embedded = {config.image_token_id, getattr(config, "video_token_id", None)}
        """Tokens that embeddings are put in the place of."""

    @torch.no_grad()
    def log_probs(
        self, prompt: EnginePrompt, answer: Answer, plan: PruningPlan | None, *, replies: bool = True
    ) -> torch.Tensor:
        """Log-probabilities for each token of the reply, shape (tokens, vocabulary); of the whole model without a plan.

        An image or video token in the reply, which would be taken for the place of one, is the last one. Without
        `replies` the reply is computed as more of the prompt.
        """
        inputs, media = self.inputs(prompt)
        prompt_ids = inputs.pop("input_ids")
        asked = prompt_ids[0].tolist()
        theirs = self._embedded_in_image_tokens(answer.prompt_ids) if prompt.videos else answer.prompt_ids
        assert asked == theirs, "the two sides read the prompt differently"
        said = itertools.takewhile(lambda token: token not in self.embedded, answer.reply_ids)
        ids = torch.tensor([[*asked, *said]])
        reply = ids.shape[1] - prompt_ids.shape[1]
        # What says something of each token says 0 of the reply's: that it is text.
        by_token = {key: one for key, one in inputs.items() if one.shape == prompt_ids.shape}
        given = dict(inputs) | {key: torch.nn.functional.pad(one, (0, reply)) for key, one in by_token.items()}
        given |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        treating: AbstractContextManager[object] = nullcontext()
        if plan is not None:
            lengths = [len(answer.prompt_ids) if replies else ids.shape[1]]
            treating = plan_treated(self.model, plan, block_size=BLOCK, prompt_lengths=lengths, media=[media])
        with treating:
            logits = self.model(**given).logits[0]
        return logits[len(answer.prompt_ids) - 1 :][: len(answer.reply_ids)].log_softmax(-1)

    def inputs(self, prompt: EnginePrompt) -> tuple[dict[str, Any], list[tuple[str, int]]]:
        """What the processor makes of a prompt, and the modality and embeddings of what is in it, in its order."""
        pictures = [{"images": [image(seed, prompt.image_size)]} for seed in prompt.images]
        videos = [_video_arguments(seed, prompt.image_size, prompt.frames) for seed in prompt.videos]
        own = {"images": [one for picture in pictures for one in picture["images"]]} if pictures else {}
        if videos:
            own |= {name: [one for video in videos for one in video[name]] for name in ("videos", "video_metadata")}
            own["do_sample_frames"] = False
        # Text in a list: Pixtral's processor takes nothing else.
        made = self.processor(text=[prompt.text], **own, return_tensors="pt")
        media = [("video", self._embeddings(self.processor.video_token, one)) for one in videos]
        media += [("image", self._embeddings(self.processor.image_token, one)) for one in pictures]
        return dict(made), media

    def _embedded_in_image_tokens(self, ids: list[int]) -> list[int]:
        """vLLM's ids, with transformers' where embeddings go: InternVL's videos have image tokens there."""
        word = getattr(self.processor, "video_token", None)
        if word is None or getattr(self.model.config, "video_token_id", None) is not None:
            return ids
        token = self.processor.tokenizer.convert_tokens_to_ids(word)
        return [IMAGE_TOKEN if one == token else one for one in ids]

    def _embeddings(self, placeholder: str, given: dict[str, Any]) -> int:
        """Embeddings of one picture or video, by the processor, which is given it alone."""
        ids = list(self.processor(text=[placeholder], **given)["input_ids"][0])
        return sum(ids.count(token) for token in self.embedded)

    def difference(
        self, prompt: EnginePrompt, answer: Answer, plan: PruningPlan | None, *, replies: bool = True
    ) -> float:
        """Largest difference in log-probability between an engine's answer and what the plan should compute.

        Infinite where one of them is no number.
        """
        expected = self.log_probs(prompt, answer, plan, replies=replies)
        assert len(answer.log_probs) == len(answer.reply_ids) >= len(expected) > 0
        each = [
            abs(expected[step, token].item() - given)
            for step, row in enumerate(answer.log_probs[: len(expected)])
            for token, given in row.items()
        ]
        return math.inf if any(map(math.isnan, each)) else max(each)


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


def _video_arguments(seed: int, size: tuple[int, int], number: int) -> dict[str, Any]:
    """A processor's arguments for one video, whose frames it takes all."""
    frames, metadata = video(seed, size, number)
    known = {name: one for name, one in metadata.items() if name != "do_sample_frames"}
    return {"videos": [frames], "video_metadata": [VideoMetadata(**known)], "do_sample_frames": False}
