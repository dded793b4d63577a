"""Loading a vision-language model with its processor, and reading off what it is: identity, geometry, decoder layers.

Owns how a name becomes a `LoadedModel`. Does not know prompts, datasets or scores; changes nothing in a model.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import logging as transformers_logging
from transformers.utils.import_utils import is_torchvision_available

from calibrate.errors import DeviceUnavailable, ImageBackendMissing, ProcessorLibraryMissing, UnsupportedModel
from calibrate.models.answer_tokens import AnswerTokens
from calibrate.models.chat_template import ChatTemplate, find_chat_template
from calibrate.models.criterion import check_heads
from calibrate.models.decoder import attention_of, decoder_layers, find_decoder
from calibrate.models.hub import files_missing
from calibrate.models.image_tokens import complete, placeholder_tokens, usual_tokens
from calibrate.models.measurable import find_measurable
from calibrate.models.registry import FoundModel
from profiles.error_text import one_line
from profiles.errors import ModelBroken
from profiles.fingerprint import OLD_SCHEME, Bar, identify_model, model_revision
from profiles.geometry import ModelGeometry, ModelRef
from profiles.transformers_config import context_length, decoder_geometry

DType = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, with what the rest of the package needs to know of it.

    Attributes
    ----------
    model, processor
        As transformers made them.
    ref, geometry
        What a profile records.
    device, dtype
        Where the weights are, and as what.
    given_template
        Chat template to write prompts with instead of the model's own.
    folder
        Where its files lie; None for a model that was not loaded from files.
    """

    model: Any
    processor: Any
    ref: ModelRef
    geometry: ModelGeometry
    device: torch.device
    dtype: torch.dtype
    given_template: ChatTemplate | None = None
    folder: Path | None = None

    def ref_like(self, revision: str) -> ModelRef:
        """`ref`, with its revision in the scheme of a document's, to compare them."""
        if self.folder is None or not revision.startswith(OLD_SCHEME):
            return self.ref
        return self.ref.model_copy(update={"revision": model_revision(self.folder, like=revision)})

    @property
    def language_model(self) -> nn.Module:
        """The decoder without its output embedding."""
        return find_decoder(self.model)

    @property
    def attentions(self) -> Sequence[nn.Module]:
        """Attention module of each decoder layer, in order; each has `q_proj`/`qkv_proj` and `o_proj`."""
        return [attention_of(layer) for layer in decoder_layers(self.model)]

    @property
    def image_token_id(self) -> int:
        """Token id that stands for one image token in `input_ids`."""
        return int(self.model.config.image_token_id)

    @property
    def image_token(self) -> str:
        """What the tokenizer reads as that token."""
        return str(self.processor.image_token)

    @cached_property
    def placeholders(self) -> dict[int, str]:
        """Tokens that a text may not say, and how they are written: they stand for a picture or a video."""
        return placeholder_tokens(self.processor)

    @property
    def template(self) -> ChatTemplate:
        """Chat template that prompts are written with."""
        return self.given_template or find_chat_template(self.processor, self.model.config.model_type)

    @cached_property
    def context_length(self) -> int | None:
        """Tokens of the longest prompt and reply together; None where the configuration does not say."""
        return context_length(self.model.config)

    @property
    def image_backend(self) -> str:
        """transformers' name of what resizes pictures, such as `torchvision`; another one gives other pixels."""
        return str(self.processor.image_processor.backend)

    @cached_property
    def answers(self) -> AnswerTokens:
        """How the model's tokenizer writes answers."""
        generation, own = self.model.generation_config, self.processor.tokenizer.eos_token_id
        stops = None if generation is None else generation.eos_token_id
        given = [own, *(stops if isinstance(stops, list) else [stops])]
        return AnswerTokens(self.processor.tokenizer, {token for token in given if token is not None})


def load_model(
    name: str,
    dtype: DType = "auto",
    device: str = "auto",
    attention: str = "sdpa",
    chat_template: ChatTemplate | None = None,
    revision: str | None = None,
    preferred: str | None = None,
    bar: Bar | None = None,
) -> LoadedModel:
    """Load a model by alias, Hub id or path.

    Parameters
    ----------
    name
        See `calibrate.models.registry.find`.
    dtype
        Of the weights; `auto` is the checkpoint's own on an accelerator, float32 on CPUs.
    device
        `auto` is the first CUDA device if there is one; else as torch names it.
    attention
        Implementation for the decoder, from transformers' registry; the vision tower always runs SDPA.
    chat_template
        To write prompts with; the model's own if not given.
    revision, preferred
        Of a Hub model, see `calibrate.models.hub.config_path`.
    bar
        Shows how far reading the weights for their digest is.

    Raises
    ------
    UnknownModel, ModelOffline, UnsupportedModel, ModelBroken, ModelQuantised, DeviceUnavailable,
    ImageBackendMissing, ProcessorLibraryMissing
    """
    found = find_measurable(name, revision, preferred)
    place = choose_device(device)
    _check_known(found)
    config = _read(found, lambda **options: AutoConfig.from_pretrained(found.source, **options))
    with torch.device("meta"), _quiet():
        built = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
        check_heads(found.name, built)
    wanted = _choose_dtype(dtype, place, config)
    with _quiet():
        processor = _read(
            found,
            lambda **options: AutoProcessor.from_pretrained(found.source, **options),  # type: ignore[no-untyped-call]
        )
        model, report = _read(
            found,
            lambda **options: AutoModelForImageTextToText.from_pretrained(
                found.source,
                dtype=wanted,
                attn_implementation={"text_config": attention, "vision_config": "sdpa"},
                output_loading_info=True,
                **options,
            ),
        )
    if report["missing_keys"]:
        first = sorted(report["missing_keys"])[0]
        raise ModelBroken(
            f"model {found.name} lacks {len(report['missing_keys'])} weights, such as {first}",
            expected=f"all weights of {found.architecture}",
            fix="fetch or save the model again",
        )
    complete(processor, model.config)
    _check_image_backend(found, processor)
    revision = identify_model(found.folder, bar=bar).revision
    return LoadedModel(
        model=model.to(place).eval().requires_grad_(False),
        processor=processor,
        ref=ModelRef(name=found.name, revision=revision, architecture=found.architecture),
        geometry=geometry_of(model.config, processor),
        device=place,
        dtype=wanted,
        given_template=chat_template,
        folder=found.folder,
    )


def geometry_of(config: Any, processor: Any = None) -> ModelGeometry:
    """Geometry of a transformers configuration; its image tokens are those of `image_tokens.usual_tokens`."""
    return decoder_geometry(config, image_tokens=usual_tokens(config, processor))


def choose_device(name: str) -> torch.device:
    """Device of a name; `auto` is the first CUDA device, or the CPU where there is none.

    Raises
    ------
    DeviceUnavailable
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceUnavailable(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]})",
            expected="auto, cpu, cuda or cuda:N",
            fix="choose a device that torch sees here",
        ) from error
    return device


def _check_known(found: FoundModel) -> None:
    """Whether transformers has a class for the model, without code of the checkpoint's own."""
    if found.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UnsupportedModel(
            f"model {found.name} is {found.architecture} ({found.model_type}), which transformers does not have",
            expected="a vision-language model in transformers' own format",
            fix="look for the model's conversion on the Hub, often named -hf, or see `vhserve models`",
        )


def _check_image_backend(found: FoundModel, processor: Any) -> None:
    """Where torchvision is missing, transformers resizes by Pillow, whose pixels are others, and says nothing."""
    if not is_torchvision_available():
        raise ImageBackendMissing(
            f"model {found.name}: pictures would be resized by {processor.image_processor.backend}, not as vLLM does",
            expected="torchvision",
            fix="pip install torchvision, in the build that goes with torch",
        )


def _choose_dtype(name: DType, device: torch.device, config: Any) -> torch.dtype:
    if name != "auto":
        return _DTYPES[name]
    own = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return own if device.type != "cpu" and isinstance(own, torch.dtype) else torch.float32


def _read(found: FoundModel, load: Any) -> Any:
    """Call a `from_pretrained`, pinned to the snapshot that the configuration was read from."""
    pinned = {} if found.is_local else {"revision": found.folder.name}
    try:
        return load(**pinned)
    except ImportError as error:
        raise ProcessorLibraryMissing(
            f"model {found.name} cannot be loaded: {one_line(str(error), 200)}",
            expected="the libraries of its processor",
            fix="install what is missing",
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = one_line(str(error), 200) or type(error).__name__
        if pinned:
            raise files_missing(found.name, reason) from error
        raise ModelBroken(
            f"model {found.name} cannot be loaded: {reason}",
            expected="configuration, processor and weights in transformers' format",
            fix="fetch or save the model again",
        ) from error


@contextmanager
def _quiet() -> Any:
    """Hold transformers' own progress bars back: ours says what is going on."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
