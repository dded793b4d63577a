"""Prompts and limits that the tests of text-only, evicted and thinned heads share: images at every kind of place.

Judges nothing.
"""

from engine_host import EnginePrompt, Round
from exactness import PROMPTS

TELLING = 1e-3
"""What full heads, or heads of another treatment, in place of a plan's change at least."""

WORDS = ["how", "many", "red", "blue", "green", "circles", "squares", "are", "there", "in", "the", "picture"]
"""A token each."""

EVERY = tuple(range(5))
"""All query heads of a layer of the tiny model `mha`."""


def at(position: int, rest: str = "", image: int = 1) -> EnginePrompt:
    """A prompt whose image starts at a token position."""
    words = " ".join((WORDS * 8)[: position - 1])
    return EnginePrompt(f"<s>{words} <image>{rest}", (image,))


IMAGE_PLACES = (*PROMPTS, EnginePrompt("<image><image> yes", (1, 4)), at(15), at(40, " how many ?"))
"""No image, one and two; adjacent ones; one that ends the prompt and fills its last block."""

SIZES = ((80, 72), (40, 120), (9, 9), (120, 40), (50, 50))
"""Pictures that get different numbers of tiles and tokens in a LLaVA-1.6, width and height."""


def sized(prompts: tuple[EnginePrompt, ...]) -> tuple[EnginePrompt, ...]:
    """The first prompts with pictures of `SIZES`, one size each."""
    return tuple(EnginePrompt(one.text, one.images, size) for one, size in zip(prompts, SIZES, strict=False))


def asked(tokens: int = 3, reset: bool = True) -> Round:
    """A round of `IMAGE_PLACES`."""
    return Round(IMAGE_PLACES, tokens, reset)
