"""How one sample is asked through OpenAI's chat protocol, and how its reply becomes an answer.

Owns the request's content and the making of an `Answer`; `client` and the server's canary share both. Does not know how
a request is sent.
"""

import base64
import io
from typing import Any, Final

from PIL import Image

from calibrate.datasets.answers import single_words
from calibrate.datasets.sample import Sample
from profiles.error_text import one_line
from profiles.pictures.opening import media_type
from vhserve.evaluation.results import Answer
from vhserve.evaluation.scoring import score

MAX_TOKENS: Final = 8
"""Tokens of a reply whose options are a word or a letter."""

MOST_TOKENS: Final = 1024


def reply_tokens(sample: Sample) -> int:
    """Tokens that are enough for a reply to a sample: a token has at least one byte, and one may end the reply."""
    options = (sample.answer, *sample.options)
    longest = 0 if single_words(options) else max(len(option.encode()) for option in options)
    return min(max(MAX_TOKENS, longest + 1), MOST_TOKENS)


def sample_message(sample: Sample) -> dict[str, Any]:
    """The user message that asks a sample: its picture's file as it is, where it has one, on the sample's side."""
    message = user_message(sample.image if sample.file is None else sample.file, sample.question)
    if sample.picture_last:
        message["content"].reverse()
    return message


def user_message(picture: Image.Image | bytes, question: str) -> dict[str, Any]:
    """Put a picture and a question into one user message of the chat protocol.

    The picture goes as a data URL: the content of a file as it is, with its own media type; pixels as PNG, which keeps
    every value.
    """
    if isinstance(picture, bytes):
        kind, content = media_type(picture), picture
    else:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        kind, content = "image/png", buffer.getvalue()
    url = f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}],
    }


def greedy_request(model: str, message: dict[str, Any], max_tokens: int = MAX_TOKENS) -> dict[str, Any]:
    """Fields of a chat completion request that is decoded greedily, to at most `max_tokens` tokens."""
    return {"model": model, "messages": [message], "max_tokens": max_tokens, "temperature": 0}


def to_answer(
    sample: Sample, *, reply: str | None, error: str | None, seconds: float, tokens: int | None = None
) -> Answer:
    """Score a sample's reply.

    Parameters
    ----------
    reply
        What the model wrote; None where the request failed.
    error
        Why it failed; None where it did not.
    seconds
        From sending the request to its whole reply.
    tokens
        Of the reply; None where that is not known.
    """
    return Answer(
        id=sample.id,
        family=sample.family,
        answer=sample.answer,
        reply=reply,
        outcome="error" if reply is None else score(reply, sample.answer, sample.options),
        error=None if error is None else one_line(error),
        seconds=seconds,
        group=sample.group,
        tokens=tokens,
    )
