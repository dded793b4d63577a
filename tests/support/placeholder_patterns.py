"""What one picture becomes in the prompts of each family: which tokens are embeddings, and which are text among them.

As the families' own processors write it: `(columns * image + break) * rows` of Pixtral and Mistral3 (transformers'
`processing_pixtral.py`, vLLM's `mistral3.py`), a tag before each tile of Idefics3 and SmolVLM (transformers' own
function makes the text), and one run of embeddings in all others. Owns no rule.
"""

import re
from dataclasses import dataclass
from typing import Final

from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

IMAGE: Final = "<image>"


@dataclass(frozen=True)
class Placeholder:
    """The tokens of one picture: whether each is an embedding."""

    picture: str
    embeds: tuple[bool, ...]

    @property
    def image_tokens(self) -> int:
        return sum(self.embeds)


def run(picture: str, tokens: int, *, ends: int = 0) -> Placeholder:
    """One run of embeddings, with `ends` tokens of text before it and behind it."""
    return Placeholder(picture, (False,) * ends + (True,) * tokens + (False,) * ends)


def rows(picture: str, columns: int, number: int) -> Placeholder:
    """Rows that each end with a token of text."""
    return Placeholder(picture, ((True,) * columns + (False,)) * number)


def tiles(picture: str, side: int, tokens: int) -> Placeholder:
    """`side * side` tiles and the whole picture, each behind its tag; tags are tokens, and so is a line break."""
    text = get_image_prompt_string(side, side, tokens, "<fake_token_around_image>", IMAGE, "<global-img>")
    return Placeholder(picture, tuple(token == IMAGE for token in re.findall(r"<[^>]*>|\n", text)))


PLACEHOLDERS: Final = {
    "LLaVA-1.5": run("any", 576),
    "LLaVA-1.6": run("672 by 672", 576 + 48 * 49),
    "LLaVA-OneVision": run("768 by 768", 729 + 54 * 55),
    "Qwen2.5-VL": run("1036 by 1036", 37 * 37),
    "Qwen3-VL": run("1024 by 1024", 32 * 32),
    "GLM-4.1V": run("1036 by 1036", 37 * 37),
    "InternVL3, 3.5": run("1344 by 1344, 9 tiles", 10 * 256, ends=1),
    "Mistral-Small-3.1": rows("1540 by 1540", 55, 55),
    "Pixtral-12B": rows("1024 by 1024", 64, 64),
    "Idefics3-8B": tiles("1456 by 1456, 16 tiles", 4, 169),
    "SmolVLM2-2.2B": tiles("1536 by 1536, 16 tiles", 4, 81),
    "SmolVLM2-500M": tiles("2048 by 2048, 16 tiles", 4, 64),
}
"""One picture of each family that `vhserve` serves or means to."""
