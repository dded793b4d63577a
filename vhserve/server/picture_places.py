"""Where pictures go in a prompt: where a request's parts put them, and never where a text says `<image>`.

Owns what is refused, with status 400, and the middleware that makes an API server do so from its start. Does not know
how vLLM renders a prompt.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from vhserve.compat.prompts import around_prompts, placeholders_of
from vhserve.server.at_start import AtStart

_MODEL_TYPES: Final = ("llava", "llava_next")
"""Models with one image token in the template for each picture. Others, which are served as stock vLLM serves them, may
have several, or none before their processor has run."""

_MEDIA: Final = ("image_url", "video_url", "audio_url", "input_audio", "image_embeds", "audio_embeds", "video_embeds")
"""Fields of a content part that hold no text."""


class PicturePlaces(AtStart):
    """Guards the server's renderer."""

    def act(self, app: Any) -> None:
        guard(app.state.engine_client.renderer)


def guard(renderer: Any) -> None:
    """Let vLLM's renderer refuse prompts in which a text would place a picture; does nothing for other models."""
    config = renderer.model_config.hf_config
    if config.model_type not in _MODEL_TYPES:
        return
    token, placeholders = placeholders_of(renderer, config.image_token_index)
    around_prompts(
        renderer,
        lambda messages: check_messages(messages, placeholders),
        lambda prompt: check_prompt(prompt, config.image_token_index, token),
    )


def check_messages(messages: Sequence[Any], placeholders: Sequence[str]) -> None:
    """Refuse messages with a placeholder in a text.

    Parameters
    ----------
    messages
        Of OpenAI's protocol. Content that can be read but once is replaced by a list.
    placeholders
        Texts that stand for a picture.

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
            if found := next((one for one in placeholders if one in text), None):
                raise ValueError(
                    f"messages[{number}] has {found} in its text, which stands for a picture: send each picture as a "
                    "part of its own, where it belongs, and leave that out"
                )


def check_prompt(prompt: Any, image_token: int, name: str) -> None:
    """Refuse a prompt with another number of image tokens than its pictures have.

    Parameters
    ----------
    prompt
        What vLLM hands to its engine: token ids, and the ranges of the pictures among them.
    image_token, name
        Id of the image token, and how it is written.

    Raises
    ------
    ValueError
        Becomes status 400.
    """
    if (ids := prompt.get("prompt_token_ids")) is None:  # embeddings
        return
    ranges = (prompt.get("mm_placeholders") or {}).get("image", ())
    stray = list(ids).count(image_token) - sum(one.get_num_embeds() for one in ranges)
    if stray:
        raise ValueError(
            f"the prompt has {stray} image tokens ({name}) that belong to none of its {len(ranges)} pictures: leave "
            "them out, and send pictures as parts of a chat message"
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
