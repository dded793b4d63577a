"""From a sample to the prompt that a model takes: its tokens, its picture, and which positions mean what.

Owns the prompt of a sample, which has the tokens that vLLM's server makes of the same question. Does not know datasets,
heads or scores, nor how prompts are put together (`batches`).
"""

from dataclasses import dataclass, field
from typing import Any

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
