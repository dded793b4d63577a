"""From samples to what a model takes: chat template, image tokens, padding, and which positions mean what.

Owns the prompt of a sample and the batch of several. Every sample is processed by itself and padded here, so that a
batch never changes what a sample's prompt is. Does not know datasets, heads or scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from calibrate.datasets.sample import Sample
from calibrate.errors import NoImageTokens
from calibrate.models.boxes import box_tokens
from calibrate.models.loading import LoadedModel

# For checkpoints that carry no chat template: what these models were trained with.
_PLAIN: Final = {
    "llava": "USER: <image>\n{question} ASSISTANT:",
    "llava_next": "USER: <image>\n{question} ASSISTANT:",
    "vipllava": "###Human: <image>\n{question}###Assistant:",
}


@dataclass(frozen=True)
class Prompt:
    """One sample, ready for the model.

    Attributes
    ----------
    tokens
        Token ids, shape `(n,)`; the last position predicts the first token of the answer that says something: a blank
        that all options begin with is part of the prompt.
    pixels
        What the processor made of the picture, by name; each with a leading axis of length 1.
    image
        Which positions are image tokens, shape `(n,)`.
    box
        Which of them lie inside the sample's box, shape `(n,)`; `None` without a box, or where it cannot be mapped.
    """

    tokens: Tensor
    pixels: dict[str, Tensor]
    image: Tensor
    box: Tensor | None


@dataclass(frozen=True)
class Batch:
    """Several prompts, padded to one length.

    Attributes
    ----------
    inputs
        Keyword arguments for the model.
    valid, image, box
        Shape `(batch, n)`: no padding; image token; image token inside the box (all false without one).
    has_box
        Shape `(batch,)`.
    last
        Last prompt position of each sample, shape `(batch,)`.
    """

    inputs: dict[str, Tensor]
    valid: Tensor
    image: Tensor
    box: Tensor
    has_box: Tensor
    last: Tensor

    def __len__(self) -> int:
        return len(self.last)


def prompt_text(loaded: LoadedModel, question: str) -> str:
    """Prompt of one picture and a question, by the processor's chat template, up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    if not loaded.processor.chat_template:
        text: str = _PLAIN[loaded.model.config.model_type].format(question=question)
        return text.replace("<image>", loaded.processor.image_token)
    text = loaded.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return text


def make_prompt(loaded: LoadedModel, sample: Sample) -> Prompt:
    """Process one sample.

    Raises
    ------
    NoImageTokens
        The chat template has no place for the picture.
    """
    processor = loaded.processor
    text, picture = prompt_text(loaded, sample.question), sample.image.convert("RGB")
    # As transformers does itself: a template that writes the first token must not get a second one.
    doubled = bool(processor.tokenizer.bos_token) and text.startswith(processor.tokenizer.bos_token)
    made: dict[str, Any] = dict(
        processor(images=[picture], text=[text], return_tensors="pt", add_special_tokens=not doubled)
    )
    lead = torch.tensor(loaded.answers.lead(sample), dtype=torch.int64)
    tokens = torch.cat([made.pop("input_ids")[0], lead])
    made.pop("attention_mask", None)
    image = tokens == loaded.image_token_id
    count = int(image.sum())
    if not count:
        raise NoImageTokens(
            f"model {loaded.ref.name}: sample {sample.id} has no image token in its prompt",
            expected="a chat template with a place for the picture",
            fix="use a checkpoint whose processor has a chat template for images",
        )
    box = None
    if sample.box is not None:
        inside = box_tokens(sample.box, picture.size, processor, loaded.model.config, count)
        if inside is not None:
            box = torch.zeros_like(image)
            box[image] = torch.from_numpy(inside)
    return Prompt(tokens, made, image, box)


def collate(loaded: LoadedModel, prompts: Sequence[Prompt], padding: Literal["left", "right"] = "right") -> Batch:
    """Pad prompts to one length and put them on the model's device.

    Padded on the right, no attention mask is needed: attention is causal, so that no prompt position sees padding, and
    kernels for plain causal attention can be used.
    """
    longest = max(len(prompt.tokens) for prompt in prompts)
    # Padding is attended by no prompt position, so any token will do, but not one that would ask for a picture.
    pad = 0 if loaded.image_token_id else 1
    columns: dict[str, list[Tensor]] = {"tokens": [], "valid": [], "image": [], "box": []}
    for prompt in prompts:
        none = torch.zeros_like(prompt.image)
        rows = (("tokens", prompt.tokens, pad), ("valid", ~none, 0), ("image", prompt.image, 0))
        for name, row, filler in (*rows, ("box", none if prompt.box is None else prompt.box, 0)):
            missing = longest - len(row)
            sides = (missing, 0) if padding == "left" else (0, missing)
            columns[name].append(torch.nn.functional.pad(row, sides, value=filler))
    tokens, valid, image, box = (torch.stack(rows) for rows in columns.values())
    inputs = {"input_ids": tokens, **_stack_pixels(prompts, loaded.dtype)}
    lengths = valid.sum(1)
    last = lengths - 1
    if padding == "left":
        last = torch.full_like(lengths, longest - 1)
        inputs |= {"attention_mask": valid.long(), "position_ids": (valid.cumsum(1) - 1).clamp(min=0)}
    has_box = torch.tensor([prompt.box is not None for prompt in prompts])
    place = loaded.device
    return Batch(
        {name: value.to(place) for name, value in inputs.items()},
        *(value.to(place) for value in (valid, image, box, has_box, last)),
    )


def make_batch(loaded: LoadedModel, samples: Sequence[Sample], padding: Literal["left", "right"] = "right") -> Batch:
    """Process and pad several samples."""
    return collate(loaded, [make_prompt(loaded, sample) for sample in samples], padding)


def _stack_pixels(prompts: Sequence[Prompt], dtype: torch.dtype) -> dict[str, Tensor]:
    """Join the pictures of several prompts; those of LLaVA-1.6 differ in tiles, which the model counts itself."""
    stacked = {}
    for name in prompts[0].pixels:
        parts = [prompt.pixels[name] for prompt in prompts]
        if parts[0].ndim == 5:
            most = max(part.shape[1] for part in parts)
            parts = [torch.nn.functional.pad(part, (0,) * 7 + (most - part.shape[1],)) for part in parts]
        joined = torch.cat(parts)
        stacked[name] = joined.to(dtype) if joined.is_floating_point() else joined
    return stacked
