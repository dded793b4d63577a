"""Where pictures and videos go in a prompt: where a request's parts put them, and never where a text says `<image>`.

Owns what is refused, with status 400, and the middleware that makes an API server do so from its start. What stands for
a picture in a model's prompts, vLLM's own processor says. Does not know models, or how vLLM renders a prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from vhserve.compat.prompts import Placeholders, around_prompts, placeholders_of
from vhserve.server.at_start import AtStart

_MEDIA: Final = ("image_url", "video_url", "audio_url", "input_audio", "image_embeds", "audio_embeds", "video_embeds")
"""Fields of a content part that hold no text."""


class PicturePlaces(AtStart):
    """Guards the server's renderer."""

    def act(self, app: Any) -> None:
        guard(app.state.engine_client.renderer)


def guard(renderer: Any) -> None:
    """Let vLLM's renderer refuse prompts in which a text would place a picture; does nothing for models of text."""
    placeholders = placeholders_of(renderer)
    if placeholders is not None and placeholders.tokens:
        around_prompts(
            renderer,
            lambda messages: check_messages(messages, placeholders),
            lambda prompt: check_prompt(prompt, placeholders, renderer.get_tokenizer().decode),
        )


def check_messages(messages: Sequence[Any], placeholders: Placeholders) -> None:
    """Refuse messages with a placeholder in a text.

    Parameters
    ----------
    messages
        Of OpenAI's protocol. Content that can be read but once is replaced by a list.
    placeholders
        Of the model.

    Raises
    ------
    ValueError
        Becomes status 400.
    """
    for number, message in enumerate(messages):
        if not isinstance(message, dict):  # vLLM takes those of the Harmony protocol, too
            raise ValueError(f"messages[{number}] is no message of this model's protocol: give it a role and content")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            message["content"] = list(content)
        for text in _texts(message):
            if found := placeholders.texts.search(text):
                raise ValueError(
                    f"messages[{number}] has {found[0]} in its text, which stands for a picture or a video: send each "
                    "as a part of its own, where it belongs, and leave that out"
                )


def check_prompt(prompt: Any, placeholders: Placeholders, decode: Callable[[Sequence[int]], str]) -> None:
    """Refuse a prompt with what stands for a picture outside the placeholders of its pictures and videos.

    Parameters
    ----------
    prompt
        What vLLM hands to its engine: token ids, and the ranges of the pictures and videos among them. These may hold
        other tokens as well: marks of tiles, ends of rows, times of frames.
    placeholders
        Of the model.
    decode
        The tokenizer's.

    Raises
    ------
    ValueError
        Becomes status 400.
    """
    if (ids := prompt.get("prompt_token_ids")) is None:  # embeddings
        return
    media = prompt.get("mm_placeholders") or {}
    ranges = sorted((one.offset, one.offset + one.length) for of_one in media.values() for one in of_one)
    starts, stops = [0, *(stop for _, stop in ranges)], [*(start for start, _ in ranges), len(ids)]
    outside = [list(ids[start:stop]) for start, stop in zip(starts, stops, strict=True)]
    for token, (modality, name) in placeholders.tokens.items():
        if stray := sum(part.count(token) for part in outside):
            raise ValueError(_belongs_to_none(f"{stray} {modality} tokens ({name})", len(ranges)))
    # Without pictures nothing is looked for in a prompt, so that these are words there.
    if not ranges or not placeholders.targets:
        return
    for text in map(decode, outside):
        if found := next((one for one in placeholders.targets if one in text), None):
            raise ValueError(_belongs_to_none(found, len(ranges)))


def _belongs_to_none(what: str, number: int) -> str:
    return (
        f"the prompt has {what} beside the places of its {number} pictures or videos: leave that out, and send "
        "pictures as parts of a chat message"
    )


def _texts(value: Any) -> Iterator[str]:
    """All texts of a message: of its content, name, reasoning and tool calls."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _MEDIA:
                yield from _texts(item)
