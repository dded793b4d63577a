"""The renderer of an API server: chat template, placeholders, image processor, and checks of prompts.

Does not know what is checked. Importing it is cheap.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from profiles.image_spans import MODALITIES


@dataclass(frozen=True)
class Placeholders:
    """What stands for a picture or a video in the prompts of a model.

    Attributes
    ----------
    tokens
        Ids of tokens that embeddings are put in the place of: modality, and how the token is written.
    texts
        What a text may not say: these tokens, what vLLM's processor puts placeholders in the place of, and what vLLM
        writes for a part of a message; numbers stand for any.
    targets
        Those that the processor looks for and that hold none of these tokens.
    """

    tokens: Mapping[int, tuple[str, str]]
    texts: re.Pattern[str]
    targets: tuple[str, ...]


def placeholders_of(renderer: Any) -> Placeholders | None:
    """What stands for pictures and videos in the prompts of a server's model; None where it takes neither.

    Learnt from what vLLM's processor does with one small picture and one small video, which it makes itself.

    Symptom
        A text that vLLM itself takes for a picture's place goes unnoticed.
    Cause
        What vLLM looks for in a prompt, and what it writes for pictures into templates that take one text, is known to
        the model's class and its processor alone.
    Removal
        vLLM publishes the placeholders of a model that it serves.
    """
    from vllm.model_executor.model_loader import get_model_cls

    if renderer.mm_processor is None:
        return None
    tokenizer, model_class = renderer.get_tokenizer(), cast(Any, get_model_cls(renderer.model_config))
    tokens: dict[int, tuple[str, str]] = {}
    targets: list[tuple[list[int], str]] = []
    patterns: list[str] = []
    for modality in MODALITIES:
        if modality not in renderer.mm_processor.info.supported_mm_limits:
            continue
        for update in _prompt_updates(renderer.mm_processor, modality):
            full, embeds = update.content.full, update.content.is_embed
            places = full if embeds is None else [one for one, embed in zip(full, embeds(full), strict=True) if embed]
            token = Counter(places).most_common(1)[0][0]  # all, but where vLLM counts the text between frames, too
            tokens.setdefault(token, (modality, tokenizer.convert_ids_to_tokens([token])[0]))
            if isinstance(update.target, list) and update.target:
                targets.append((update.target, tokenizer.decode(update.target)))
        with suppress(ValueError):  # of a class that writes nothing for this modality
            if written := model_class.get_placeholder_str(modality, _NUMBER):
                patterns.append(re.escape(written).replace(str(_NUMBER), r"\d+"))
    # Tokenizers that read no text as a special token take these names for words, and so do we.
    names = [name for token, (_, name) in tokens.items() if token in _ids(tokenizer, name)]
    patterns += [re.escape(one) for one in (*names, *(text for _, text in targets))]
    return Placeholders(
        tokens=tokens,
        texts=re.compile("|".join(dict.fromkeys(patterns))),
        targets=tuple(dict.fromkeys(text for ids, text in targets if not tokens.keys() & set(ids))),
    )


_NUMBER: Final = 987654321
"""What counts the pictures in the placeholders of models that number them."""

_SIDE: Final = 96
"""Pixels of the pictures that tell a model's placeholders."""


def _prompt_updates(processor: Any, modality: str) -> list[Any]:
    """What vLLM's processor would do to a prompt with one small picture, or video of two frames."""
    from vllm.config.multimodal import ImageDummyOptions, MultiModalDummyOptions, VideoDummyOptions
    from vllm.multimodal.processing.context import TimingContext

    options: Any = MultiModalDummyOptions(
        image=ImageDummyOptions(count=1, width=_SIDE, height=_SIDE),
        video=VideoDummyOptions(count=1, width=_SIDE, height=_SIDE, num_frames=2),
    )
    inputs = processor.get_dummy_inputs(processor.info.ctx.model_config.max_model_len, {modality: 1}, options)
    made: list[Any] = processor._apply_hf_processor(inputs, TimingContext(enabled=False)).prompt_updates[modality][0]
    return made


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def media_processor_of(renderer: Any, modality: str) -> Any | None:
    """transformers' `image` or `video` processor of an API server's model; None where there is none.

    Symptom
        A picture's size after resizing, which may be a thousand times its own, is known only when it has been resized.
    Cause
        vLLM asks its processor for what a picture becomes, not for what it takes; the one behind is not published.
    Removal
        vLLM limits what its processors make of a picture, by a picture's size.
    """
    if renderer.mm_processor is None:
        return None
    return getattr(renderer.mm_processor.info.get_hf_processor(), f"{modality}_processor", None)


def around_prompts(renderer: Any, messages: Callable[[Any], None], prompt: Callable[[Any], None]) -> None:
    """Call checks on an API server's prompts: on messages before they are rendered, on what goes to the engine after.

    Symptom
        `<image>` in a text, of a system message or an earlier turn, gets the picture of a later one; in a prompt
        without pictures the model sees an image token that shows nothing.
    Cause
        vLLM puts pictures wherever the image token stands in the rendered prompt, whoever wrote it. Its renderer, which
        all routes share, has no place for checks.
    Removal
        vLLM refuses or escapes image tokens in texts.
    """
    render, render_async = renderer.render_messages, renderer.render_messages_async
    process, process_async = renderer.process_for_engine, renderer.process_for_engine_async

    def render_messages(asked: Any, params: Any) -> Any:
        messages(asked)
        return render(asked, params)

    async def render_messages_async(asked: Any, params: Any) -> Any:
        messages(asked)
        return await render_async(asked, params)

    def process_for_engine(*args: Any, **options: Any) -> Any:
        prompt(made := process(*args, **options))
        return made

    async def process_for_engine_async(*args: Any, **options: Any) -> Any:
        prompt(made := await process_async(*args, **options))
        return made

    renderer.render_messages, renderer.render_messages_async = render_messages, render_messages_async
    renderer.process_for_engine, renderer.process_for_engine_async = process_for_engine, process_for_engine_async


def ignore_client_uuids(renderer: Any) -> None:
    """Let an API server know pictures by their content, whichever `uuid` a request gives them.

    Symptom
        A picture is answered with another client's, which has the same `uuid`.
    Cause
        vLLM takes the `uuid` of a content part as the picture's key in its caches, which all clients share.
    Removal
        vLLM adds the content, or the client, to that key.

    A picture without data, which only its `uuid` could tell, is refused with status 400.
    """
    stock = renderer._process_mm_uuids

    def without_uuids(mm_data: Any, mm_data_items: Any, mm_uuid_items: Any, mm_req_id: str) -> Any:
        for modality in mm_uuid_items:
            if any(item is None for item in mm_data_items.get(modality) or [None]):
                raise ValueError(
                    f"{modality} without data: this server keeps nothing by a client's uuid; send the {modality}, "
                    "or serve with --trust-client-media-uuid"
                )
        return stock(mm_data, mm_data_items, {}, mm_req_id)

    renderer._process_mm_uuids = without_uuids


def chat_template_of(renderer: Any, given: str | None, given_format: str) -> tuple[str, str] | None:
    """The chat template that an API server writes prompts with, and its content format; None where there is none.

    Parameters
    ----------
    given, given_format
        As of --chat-template and --chat-template-content-format.

    Symptom
        Which template a server uses is said by no route and no log.
    Cause
        vLLM looks for it with every request, in functions that are not public.
    Removal
        vLLM publishes the template in force.
    """
    from vllm.renderers.chat_utils import load_chat_template
    from vllm.renderers.hf import HfRenderer, resolve_chat_template, resolve_chat_template_content_format

    if not isinstance(renderer, HfRenderer):
        return None
    config: Any = renderer.model_config
    tokenizer: Any = renderer.get_tokenizer()
    text = resolve_chat_template(tokenizer, load_chat_template(given), None, model_config=config)
    if text is None:
        return None
    wanted: Any = given_format
    return text, resolve_chat_template_content_format(text, None, wanted, tokenizer, model_config=config)
