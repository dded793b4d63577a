"""What vLLM's server makes of chat messages: its own renderer and processor, without an engine.

Run in the engine host, by `engine_host.call`. Knows nothing of what should come out.
"""

import functools
from collections.abc import Callable
from typing import Any

from engine_prompts import EnginePrompt, request


@functools.lru_cache(maxsize=16)
def renderer(model: str) -> Any:
    """vLLM's renderer of a checkpoint, as an API server has it."""
    from vllm.config import ModelConfig, VllmConfig
    from vllm.plugins import load_general_plugins
    from vllm.renderers.registry import renderer_from_config

    load_general_plugins()
    return renderer_from_config(VllmConfig(model_config=ModelConfig(model=model, dtype="float32")))


def chat_prompts(model: str, conversations: list[list[Any]], template: str | None = None) -> list[list[int]]:
    """Token ids that the engine would get for each conversation of a chat request.

    Parameters
    ----------
    conversations
        Messages of OpenAI's protocol; a part of the type `image_pil` holds a Pillow image.
    template
        As of `--chat-template`.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    own = renderer(model)
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "?"}])  # for the server's defaults
    chat = request.build_chat_params(template, "auto").with_defaults({"tools": None, "tokenize": False})
    _, prompts = own.render_chat(conversations, chat, request.build_tok_params(own.model_config))
    return [list(prompt["prompt_token_ids"]) for prompt in prompts]


def templates(models: list[str]) -> list[str | None]:
    """Chat template that vLLM finds for each checkpoint."""
    from vllm.renderers.hf import resolve_chat_template

    return [
        resolve_chat_template(renderer(model).tokenizer, None, None, model_config=renderer(model).model_config)
        for model in models
    ]


def templates_in_force(asked: list[tuple[str, str | None, str]]) -> list[tuple[str, str] | None]:
    """What a server of each model, --chat-template and --chat-template-content-format finds out about itself."""
    from vhserve.compat.prompts import chat_template_of

    return [chat_template_of(renderer(model), given, form) for model, given, form in asked]


def content_formats(texts: list[str]) -> list[str]:
    """What vLLM takes the content of each template's messages for."""
    from vllm.renderers.hf import _detect_content_format

    return [_detect_content_format(text, default="string") for text in texts]


def message(picture: Any, text: str, *, picture_last: bool = False) -> list[dict[str, Any]]:
    """A conversation of one message with a picture."""
    parts = [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts[::-1] if picture_last else parts}]


def guarded(model: str, conversations: list[list[Any]], template: str | None = None) -> list[list[int] | str]:
    """What the server makes of each conversation: its token ids, or the line of the error that it is refused with."""
    return _guarded(model, conversations, lambda one: chat_prompts(model, [one], template)[0])


def guarded_prompts(model: str, prompts: list[EnginePrompt]) -> list[list[int] | str]:
    """The same of prompts that are sent with their pictures and videos, and not as messages."""

    def ids(prompt: EnginePrompt) -> list[int]:
        (made,) = renderer(model).render_cmpl([request(prompt)])
        return list(made["prompt_token_ids"])

    return _guarded(model, prompts, ids)


def _guarded(model: str, asked: list[Any], made: Callable[[Any], list[int]]) -> list[list[int] | str]:
    from vhserve.server.picture_places import guard

    own, outcomes = renderer(model), list[list[int] | str]()
    stock = dict(vars(own))
    try:
        guard(own)
        for one in asked:
            try:
                outcomes.append(made(one))
            except ValueError as error:
                outcomes.append(str(error))
    finally:
        vars(own).clear()
        vars(own).update(stock)
    return outcomes


def pixels_of(model: str, urls: list[str]) -> list[dict[str, Any] | str]:
    """What the server hands to a model for each picture's URL, by name, or the line that it is refused with."""
    from unittest.mock import patch

    from vllm import envs

    from profiles.pictures.resizing import ResizeRule
    from vhserve.compat.prompts import media_processor_of
    from vhserve.server import media
    from vhserve.server.request_pictures import PixelLimits, RequestPictures, current

    media.register()
    own, rule = renderer(model), ResizeRule.of(media_processor_of(renderer(model), "image"))
    outcomes = list[dict[str, Any] | str]()
    with patch.object(envs, "VLLM_MEDIA_CONNECTOR", "vhserve", create=True):
        for url in urls:
            own.clear_mm_cache()
            token = current.set(RequestPictures(PixelLimits(), rule))
            try:
                outcomes.append(_pixels(own, url))
            except ValueError as error:
                outcomes.append(str(error))
            finally:
                current.reset(token)
    return outcomes


def _pixels(own: Any, url: str) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]
    (item,) = engine_input(own, content)["mm_kwargs"]["image"]
    return {name: field.data.numpy() for name, field in item.items()}


def engine_input(own: Any, content: list[dict[str, Any]]) -> Any:
    """What a renderer makes for the engine of one message's parts."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    request = ChatCompletionRequest(messages=[{"role": "user", "content": "?"}])  # for the server's defaults
    chat = request.build_chat_params(None, "auto").with_defaults({"tools": None, "tokenize": False})
    messages = [{"role": "user", "content": content}]
    _, (prompt,) = own.render_chat([messages], chat, request.build_tok_params(own.model_config))
    return prompt
