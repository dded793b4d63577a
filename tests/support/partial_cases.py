"""Prompts, plans and limits that tests of text-only, evicted and thinned heads share: images at every kind of place.

Judges nothing.
"""

from typing import Any

from engine_host import Round
from engine_prompts import EnginePrompt
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


# --- plans of tiny models of six layers with five heads ---

LATE: dict[str, Any] = {
    # Layers 3 to 5 keep no image: one all text-only, one with a removed head, one of removed heads alone.
    "text_only": {1: (0, 2), 3: EVERY, 4: (0, 1, 2, 4)},
    "removed": {0: (1,), 4: (3,), 5: EVERY},
    "mean": True,
}
MIXED: dict[str, Any] = {
    "other": {
        "evict": {0: (1,), 1: (0, 2), 2: (0, 1, 2), 3: (1, 3)},
        "evict:2": {1: (4,), 4: (0, 3)},
        "thinned:2": {0: (3, 4), 2: (3, 4), 5: (1,)},
    },
    "text_only": {3: (4,), 4: (1, 2), 5: (2,)},
    "removed": {3: (0,), 4: (4,), 5: (0, 4)},
}

HALF: dict[str, Any] = {"other": {"evict": dict.fromkeys(range(6), (0, 1))}, "removed": dict.fromkeys(range(6), (4,))}

ENDS = (
    EnginePrompt("<s>USER: what is there ? <image>", (1,)),
    EnginePrompt("<image><image>", (2, 4)),
    EnginePrompt("<s>USER: <image> is like <image>", (3, 5)),
)
"""Prompts whose last token is one of an image."""
