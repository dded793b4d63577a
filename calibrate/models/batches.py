"""Several prompts as one batch of a model: padding, pictures joined, and where answers are predicted.

Owns the batch. Every sample is processed by itself and padded here, so that a batch never changes what a sample's
prompt is. Does not know how a prompt is made (`prompts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from calibrate.datasets.sample import Sample
from calibrate.models.loading import LoadedModel
from calibrate.models.prompts import Prompt, make_prompt


@dataclass(frozen=True)
class ExpectedTokens:
    """Where a batch's answers are predicted, and what they are; as wide as the longest answer with its end.

    Attributes
    ----------
    positions
        Positions that predict the answer's tokens and what follows it, `(batch, m)`; of shorter answers, the last one
        is repeated.
    tokens
        Tokens of the answer that they should predict, `(batch, m)`; -1 where the reply may end, and beyond.
    prompt_lengths
        Tokens of each prompt as a server has it: without its answer, and without the blank that all options begin
        with, which the model writes; `(batch,)`.
    """

    positions: Tensor
    tokens: Tensor
    prompt_lengths: list[int]


@dataclass(frozen=True)
class Batch:
    """Several prompts, padded to one length.

    Attributes
    ----------
    inputs
        Keyword arguments for the model.
    valid, image, spans, box
        Shape `(batch, n)`: no padding; image token; inside an image span; image token inside the box (all false without
        one).
    has_box
        Shape `(batch,)`.
    last
        Last prompt position of each sample, shape `(batch,)`.
    expected
        The answers, where they were asked for with the samples.
    """

    inputs: dict[str, Tensor]
    valid: Tensor
    image: Tensor
    spans: Tensor
    box: Tensor
    has_box: Tensor
    last: Tensor
    expected: ExpectedTokens | None = None

    def __len__(self) -> int:
        return len(self.last)

    @property
    def predicting(self) -> Tensor:
        """Positions whose logits are wanted: `(batch, m)` of the expected answers, or the last ones, `(batch,)`."""
        return self.last if self.expected is None else self.expected.positions


def collate(loaded: LoadedModel, prompts: Sequence[Prompt], padding: Literal["left", "right"] = "right") -> Batch:
    """Pad prompts to one length and put them on the model's device.

    Padded on the right, no attention mask is needed: attention is causal, so that no prompt position sees padding, and
    kernels for plain causal attention can be used.
    """
    longest = max(len(prompt.tokens) for prompt in prompts)
    # Padding is attended by no prompt position, so any token will do, but not one that would ask for a picture.
    pad = 0 if loaded.image_token_id else 1
    kinds = list(prompts[0].kinds)
    columns: dict[str, list[Tensor]] = {name: [] for name in ("tokens", "valid", "image", "spans", "box", *kinds)}
    for prompt in prompts:
        none = torch.zeros_like(prompt.image)
        rows = [("tokens", prompt.tokens, pad), ("valid", ~none, 0), ("image", prompt.image, 0)]
        rows += [
            ("spans", prompt.spans, 0),
            ("box", none if prompt.box is None else prompt.box, 0),
            *((one, prompt.kinds[one], 0) for one in kinds),
        ]
        for name, row, filler in rows:
            missing = longest - len(row)
            sides = (missing, 0) if padding == "left" else (0, missing)
            columns[name].append(torch.nn.functional.pad(row, sides, value=filler))
    tokens, valid, image, spans, box, *others = (torch.stack(rows) for rows in columns.values())
    inputs = {"input_ids": tokens, **dict(zip(kinds, others, strict=True)), **_stack_pixels(prompts, loaded.dtype)}
    lengths = valid.sum(1)
    forced = torch.tensor([prompt.forced for prompt in prompts])
    last = lengths - 1 - forced
    if padding == "left":
        last = longest - 1 - forced
        inputs["attention_mask"] = valid.long()
        if not kinds:  # else the model counts positions itself, by what kind each token is
            inputs["position_ids"] = (valid.cumsum(1) - 1).clamp(min=0)
    has_box = torch.tensor([prompt.box is not None for prompt in prompts])
    place = loaded.device
    return Batch(
        inputs={name: value.to(place) for name, value in inputs.items()},
        valid=valid.to(place),
        image=image.to(place),
        spans=spans.to(place),
        box=box.to(place),
        has_box=has_box.to(place),
        last=last.to(place),
    )


def make_batch(loaded: LoadedModel, samples: Sequence[Sample], padding: Literal["left", "right"] = "right") -> Batch:
    """Process and pad several samples."""
    return collate(loaded, [make_prompt(loaded, sample) for sample in samples], padding)


def make_answered_batch(
    loaded: LoadedModel,
    samples: Sequence[Sample],
    padding: Literal["left", "right"] = "right",
    *,
    plain: Batch | None = None,
) -> tuple[Batch, ExpectedTokens]:
    """Process and pad several samples, with the answers that their first token does not tell behind their prompts.

    Parameters
    ----------
    plain
        The batch of the same samples without answers, if there is one; taken where all first tokens tell.

    Returns
    -------
    The batch, and its `expected`.
    """
    forced = [loaded.answers.forced(sample) for sample in samples]
    if plain is None or any(forced):
        plain = collate(loaded, [make_prompt(loaded, sample, answered=True) for sample in samples], padding)
    rows = [
        [*tokens, -1] if tokens else loaded.answers.expected(sample)
        for sample, tokens in zip(samples, forced, strict=True)
    ]
    width = max(map(len, rows))
    ends = plain.last[:, None] + torch.tensor([[len(tokens)] for tokens in forced], device=loaded.device)
    expected = ExpectedTokens(
        positions=(plain.last[:, None] + torch.arange(width, device=loaded.device)).minimum(ends),
        tokens=torch.tensor([row + [-1] * (width - len(row)) for row in rows], device=loaded.device),
        prompt_lengths=[
            int(row) - loaded.answers.replied(sample) for row, sample in zip(plain.valid.sum(1), samples, strict=True)
        ],
    )
    return replace(plain, expected=expected), expected


def _stack_pixels(prompts: Sequence[Prompt], dtype: torch.dtype) -> dict[str, Tensor]:
    """Join the pictures of several prompts along their first axis, which counts pictures, tiles or patches.

    What differs along others, such as tiles or rows of pixels, is filled with zeros at the end, as processors fill a
    batch: the model counts tiles itself, or is told the sizes.
    """
    stacked = {}
    for name in prompts[0].pixels:
        parts = [prompt.pixels[name] for prompt in prompts]
        largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        joined = torch.cat([_filled(part, largest) for part in parts])
        stacked[name] = joined.to(dtype) if joined.is_floating_point() else joined
    return stacked


def _filled(part: Tensor, sizes: Sequence[int]) -> Tensor:
    """A tensor with zeros at the end of its axes but the first, up to these sizes."""
    missing = [size - own for size, own in zip(sizes, part.shape[1:], strict=True)]
    return (
        torch.nn.functional.pad(part, [side for one in reversed(missing) for side in (0, one)])
        if any(missing)
        else part
    )
