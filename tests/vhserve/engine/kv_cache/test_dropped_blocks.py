"""Image tokens that every tiny family's own processor writes, and how many of their whole blocks heads can drop.

Tiny processors make pictures too small for a block of 128, some for one of 32; pictures of the published sizes, in the
documentation's rows, have whole blocks of every size (`test_image_spans`).
"""

from pathlib import Path
from typing import Final

import pytest
from engine_prompts import EnginePrompt
from oracle import Oracle
from placeholder_patterns import PLACEHOLDERS
from tiny_families import FAMILIES

from profiles.image_spans import RULE
from vhserve.engine.kv_cache.image_spans import image_blocks

BLOCKS: Final = (16, 32, 128)
LEAST: Final = 0.9
SIZE: Final = (384, 384)

PUBLISHED: Final = {
    "llava-onevision": ("LLaVA-OneVision",),
    "qwen2.5-vl": ("Qwen2.5-VL",),
    "qwen3-vl": ("Qwen3-VL",),
    "qwen3-vl-moe": ("Qwen3-VL",),
    "internvl-qwen2": ("InternVL3, 3.5",),
    "internvl-qwen3": ("InternVL3, 3.5",),
    "mistral3": ("Mistral-Small-3.1",),
    "pixtral": ("Pixtral-12B",),
    "glm-4.1v": ("GLM-4.1V",),
    "idefics3": ("Idefics3-8B",),
    "smolvlm": ("SmolVLM2-2.2B", "SmolVLM2-500M"),
}
"""Rows of the documentation's table that a family has."""


def test_every_family_has_rows_in_the_table() -> None:
    assert PUBLISHED.keys() == FAMILIES.keys()
    assert {row for rows in PUBLISHED.values() for row in rows} <= PLACEHOLDERS.keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_blocks_of_a_family_s_picture_are_dropped(name: str, tmp_path: Path) -> None:
    """Of those inside the picture, wherever it begins in a block; holes of its rows and tiles included."""
    family = FAMILIES[name]
    oracle = Oracle(family.make(tmp_path))
    inputs, media = oracle.inputs(EnginePrompt(family.prompt(None, "how many ?"), (1,), SIZE))
    embeds = [token == oracle.model.config.image_token_id for token in inputs["input_ids"][0].tolist()]
    spans, places = RULE.spans_of_tokens(embeds, media), [place for place, one in enumerate(embeds) if one]
    first, last = places[0], places[-1]
    for size in BLOCKS:
        moved = [[(gap + start, gap + stop) for start, stop in spans] for gap in range(size)]
        dropped = sum(stop - start for one in moved for start, stop in image_blocks(one, size))
        around = [image_blocks([(gap + first, gap + last + 1)], size) for gap in range(size)]
        whole = sum(stop - start for one in around for start, stop in one)
        print(f"{name}: {len(places)} image tokens, blocks of {size}: {dropped} of {whole}")
        assert whole > 0 or size > min(BLOCKS), "the picture is too small for any block"
        assert dropped >= LEAST * whole
