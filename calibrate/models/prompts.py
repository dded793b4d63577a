"""From samples to what a model takes: image tokens, padding, and which positions mean what.

Owns the prompt of a sample, which has the tokens that vLLM's server makes of the same question, and the batch of
several. Every sample is processed by itself and padded here, so that a
batch never changes what a sample's prompt is. Does not know datasets, heads or scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from calibrate.datasets.placeholders import place_picture
from calibrate.datasets.sample import Sample
from calibrate.errors import NoImageTokens, PictureTooLarge, PlaceholderInText, PromptTooLong
from calibrate.models.boxes import box_tokens, token_grid
from calibrate.models.image_spans import span_mask
from calibrate.models.loading import LoadedModel
from profiles.pictures.limits import MAX_PIXELS, excess
from profiles.pictures.resizing import ResizeRule


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
    spans
        Which positions lie in image spans: image tokens, and short runs of text between them; shape `(n,)`.
    box
        Which of them lie inside the sample's box, shape `(n,)`; `None` without a box, or where it cannot be mapped.
    forced
        How many of the tokens, at the end, are those of the answer.
    kinds
        What else the processor says of each token, by name, each of shape `(n,)`; 0 for text.
    """

    tokens: Tensor
    pixels: dict[str, Tensor]
    image: Tensor
    spans: Tensor
    box: Tensor | None
    forced: int = 0
    kinds: dict[str, Tensor] = field(default_factory=dict)


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


def prompt_text(loaded: LoadedModel, question: str, *, picture_last: bool = False) -> str:
    """Prompt of one picture and a question, by the model's chat template, up to where the answer begins.

    Raises
    ------
    TemplateBroken
    """
    template, tokenizer = loaded.template, loaded.processor.tokenizer
    return template.render(tokenizer, question, loaded.image_token, picture_last=picture_last)


def make_prompt(loaded: LoadedModel, sample: Sample, *, answered: bool = False) -> Prompt:
    """Process one sample; with `answered`, the answer's tokens follow where its first one does not tell it.

    Raises
    ------
    PlaceholderInText
        The question has the model's image token in it, elsewhere than at its beginning or end, or its video token.
    NoImageTokens
        The chat template has no place for the picture, or several.
    PromptTooLong
        The model does not take so many tokens and one of an answer.
    PictureTooLarge
        The processor would make too many pixels of it before it crops.
    TemplateBroken
    """
    picture = sample.image.convert("RGB")
    _check_size(loaded, sample)
    made: dict[str, Any] = dict(
        loaded.processor(images=[picture], text=[loaded.image_token], return_tensors="pt", add_special_tokens=False)
    )
    placed = made.pop("input_ids")[0]
    made.pop("attention_mask", None)
    forced = loaded.answers.forced(sample) if answered else []
    before, after = _around_picture(loaded, sample)
    after = [*after, *loaded.answers.lead(sample), *forced]
    tokens = torch.cat([torch.tensor(before, dtype=torch.int64), placed, torch.tensor(after, dtype=torch.int64)])
    _check_length(loaded, sample, len(tokens))
    by_token = {name: made.pop(name)[0] for name in list(made) if made[name].shape == (1, len(placed))}
    kinds = {name: torch.nn.functional.pad(one, (len(before), len(after))) for name, one in by_token.items()}
    image = tokens == loaded.image_token_id
    box = None
    if sample.box is not None:
        count = int(image.sum())
        grid = token_grid(made, loaded.processor)
        inside = box_tokens(sample.box, picture.size, loaded.processor, loaded.model.config, count, grid)
        if inside is not None:
            box = torch.zeros_like(image)
            box[image] = torch.from_numpy(inside)
    return Prompt(tokens, made, image, span_mask(image[None])[0], box, len(forced), kinds)


def _check_size(loaded: LoadedModel, sample: Sample) -> None:
    size, resized = sample.image.size, ResizeRule.of(loaded.processor.image_processor).resized(sample.image.size)
    if (wrong := excess(size, resized, MAX_PIXELS)) is not None:
        raise PictureTooLarge(
            f"the picture of sample {sample.id} is too large: {wrong}",
            expected="no more, as in a server",
            fix="crop the picture, or take its record out",
        )


def _around_picture(loaded: LoadedModel, sample: Sample) -> tuple[list[int], list[int]]:
    """Tokens of a sample's prompt before and behind the one that stands for the picture."""
    wanted = loaded.image_token_id
    placed = place_picture(sample.question, loaded.image_token)
    # A tokenizer that normalises text reads more as the image token than the token's own name.
    ids = [wanted] if placed is None else _ids(loaded, placed.question)
    found = next((word for token, word in loaded.placeholders.items() if token in ids), None)
    if placed is None or found is not None:
        kind = "picture" if found == loaded.image_token else "video"
        raise PlaceholderInText(
            f"sample {sample.id}: the question has {found} among its words, which stands for a {kind}",
            expected=f"one {loaded.image_token} at its beginning or end, where the picture goes, or none",
            fix="mend the question, or take it out",
        )
    text = prompt_text(loaded, placed.question, picture_last=sample.picture_last or placed.picture_last)
    tokens = _ids(loaded, text)
    if (places := tokens.count(wanted)) != 1:
        raise NoImageTokens(
            f"model {loaded.ref.name}: sample {sample.id} has {places or 'no'} places for the picture in its prompt",
            expected="a chat template with a place for each picture of a message",
            fix="use a checkpoint whose processor has a chat template for images",
        )
    place = tokens.index(wanted)
    return tokens[:place], tokens[place + 1 :]


def _ids(loaded: LoadedModel, text: str) -> list[int]:
    """Tokens of a text. As in the server, a chat template writes the first token itself, or there is none."""
    tokens: list[int] = loaded.processor.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def _check_length(loaded: LoadedModel, sample: Sample, tokens: int) -> None:
    if loaded.context_length is not None and tokens >= loaded.context_length:
        raise PromptTooLong(
            f"sample {sample.id}: its prompt has {tokens:,} tokens",
            expected=f"at most {loaded.context_length - 1:,}, and one of the answer, of model {loaded.ref.name}",
            fix="shorten the question, or take it out",
        )


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
