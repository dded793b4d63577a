"""Texts that say `<image>`: the places of pictures in the tokens that vLLM's own renderer makes, with the check and
without it.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import vllm_prompts
from engine_host import EngineHost, call
from engine_prompts import IMAGE_TOKEN, image
from tiny_models import make_tiny_llava

from vhserve.compat.prompts import Placeholders
from vhserve.server.picture_places import check_messages, check_prompt

SEED = 20263
TOKENS = 81
"""Image tokens of a picture of the tiny model."""

IN_ORDER = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %} {% endfor %}{% endfor %}"
)
JOINED = IN_ORDER.replace(" {% endfor %}", "{% endfor %}")
ONE_TEXT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llava(tmp_path_factory.mktemp("model"), layers=1, query_heads=2)


def picture(seed: int = 1) -> dict[str, Any]:
    return {"type": "image_pil", "image_pil": image(seed, (72, 72))}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def said(content: Any, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


ASKED = said([picture(), text("how many red ?")])
MOVING = {
    "system message": [said("<image> is", "system"), ASKED],
    "earlier turn": [said("what is <image> ?"), said("red", "assistant"), ASKED],
    "assistant's turn": [said("how many ?"), said("<image>", "assistant"), ASKED],
    "same message": [said([picture(), text("<image> how many red ?")])],
    "in place of the picture": [said([text("how many <image> red ?"), picture()])],
    "text without a picture": [said("is there any <image> ?")],
    "part of a system message": [said([text("is"), text("a <image>")], "system"), ASKED],
    "name": [said("how many ?", name="<image>"), ASKED],
    "tool call": [
        ASKED,
        said(
            None,
            "assistant",
            tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "<image>"}'}}],
        ),
    ],
}


@pytest.mark.vllm
@pytest.mark.timeout(600)
class TestWithVllm:
    def outcomes(self, host: EngineHost, model: Path, conversations: list[Any], template: str | None = None) -> Any:
        outcome = host.do(call(vllm_prompts.guarded, str(model), conversations, template))
        assert outcome.failure is None, outcome.failure
        return outcome.probed

    @pytest.mark.parametrize("template", [None, IN_ORDER, ONE_TEXT], ids=["own", "in order", "text"])
    def test_every_text_with_a_placeholder_is_refused(self, template: str | None, engine_host: EngineHost, model: Path):
        outcomes = self.outcomes(engine_host, model, list(MOVING.values()), template)
        for name, outcome in zip(MOVING, outcomes, strict=True):
            assert isinstance(outcome, str), name
            assert outcome.startswith("messages["), name
            assert "<image>" in outcome, name
            assert "\n" not in outcome, name

    def test_without_the_check_the_picture_moves(self, engine_host: EngineHost, model: Path) -> None:
        """What the check is there for: vLLM alone puts the picture where the system message says `<image>`."""
        conversations = [[ASKED], MOVING["system message"]]
        outcome = engine_host.do(call(vllm_prompts.chat_prompts, str(model), conversations, None))
        assert outcome.failure is None, outcome.failure
        first = [ids.index(IMAGE_TOKEN) for ids in outcome.probed]
        runs = [
            ids[start : start + TOKENS] == [IMAGE_TOKEN] * TOKENS
            for ids, start in zip(outcome.probed, first, strict=True)
        ]
        assert runs == [True, True]
        assert first[1] == 1
        assert outcome.probed[1].count(IMAGE_TOKEN) == TOKENS + 1

    def test_a_placeholder_that_only_the_template_puts_together(self, engine_host: EngineHost, model: Path) -> None:
        halves = [said([text("<im"), text("age> how many ?"), picture()])]
        (outcome,) = self.outcomes(engine_host, model, [halves], JOINED)
        assert outcome.startswith("the prompt has 1 image tokens (<image>) beside the places of its 1 pictures")

    def test_pictures_stand_where_their_parts_stand(self, engine_host: EngineHost, model: Path) -> None:
        """Random conversations without placeholders are not refused, and every picture is in its place."""
        print("seed", SEED)
        rng = random.Random(SEED)
        words = ["red", "circles", "image", "<", ">", "<images", "< image >", "&lt;image&gt;", "<IMAGE>"]
        alone = dict(
            zip(words, self.outcomes(engine_host, model, [[said(one)] for one in words], IN_ORDER), strict=True)
        )
        conversations, wanted = [], []
        for _ in range(12):
            parts, tokens = [], []
            for number in range(rng.randint(1, 5)):
                word = rng.choice(words) if rng.random() < 0.5 else None
                parts.append(text(word) if word else picture(number))
                tokens += alone[word] if word else [IMAGE_TOKEN] * TOKENS
            conversations.append([said(parts)])
            wanted.append(tokens)
        assert self.outcomes(engine_host, model, conversations, IN_ORDER) == wanted


PLACEHOLDERS = Placeholders({4: ("image", "<image>")}, re.compile("<image>|<image_\\d+>"), ("<cow>",))
"""Of a model that has all kinds: it numbers its pictures, and looks for one of them in text."""


def test_messages_that_can_be_read_once_are_kept() -> None:
    message = {"role": "user", "content": iter([text("a"), text("b")])}
    check_messages([message], PLACEHOLDERS)
    assert message["content"] == [text("a"), text("b")]


def test_addresses_of_pictures_are_no_texts() -> None:
    check_messages([said([{"type": "image_url", "image_url": {"url": "https://x/<image>.png"}}])], PLACEHOLDERS)


def test_numbered_placeholders_are_found_by_any_number() -> None:
    check_messages([said("<image_>")], PLACEHOLDERS)
    with pytest.raises(ValueError, match="has <image_12> in its text"):
        check_messages([said("what is <image_12> ?")], PLACEHOLDERS)


def test_embeddings_have_no_tokens_to_check() -> None:
    check_prompt({"type": "embeds", "prompt_embeds": None}, PLACEHOLDERS, str)


class Range(NamedTuple):
    """Of vLLM's `PlaceholderRange`, what is read."""

    offset: int
    length: int


@pytest.mark.parametrize(
    ("ids", "ranges", "refusal"),
    [
        ([1, 4, 9, 4, 2], [Range(1, 3)], None),
        ([4, 4], [Range(1, 1), Range(0, 1)], None),
        ([1, 2], [], None),
        ([1, 4, 9, 4, 4], [Range(1, 3)], "1 image tokens (<image>) beside the places of its 1 pictures"),
        ([4, 1], [], "1 image tokens (<image>) beside the places of its 0 pictures"),
        ([60, 99, 111, 119, 62, 4], [Range(5, 1)], "<cow> beside the places of its 1 pictures"),
        ([60, 99, 111, 119, 62], [], None),
        ([60, 99, 4, 111, 119, 62], [Range(2, 1)], None),
    ],
    ids=["row break", "two", "none", "one more", "none of a picture", "text", "words", "text around a picture"],
)
def test_only_what_lies_outside_of_placeholders_is_refused(
    ids: list[int], ranges: list[Range], refusal: str | None
) -> None:
    prompt = {"prompt_token_ids": ids, "mm_placeholders": {"image": ranges[:1], "video": ranges[1:]}}

    def decode(part: Sequence[int]) -> str:
        return "".join(map(chr, part))

    if refusal is None:
        check_prompt(prompt, PLACEHOLDERS, decode)
    else:
        with pytest.raises(ValueError, match=re.escape(refusal)):
            check_prompt(prompt, PLACEHOLDERS, decode)
