"""Are the files that vLLM will load there, whole, and of the model that the configuration describes?

Reads headers of weights, tokenizer, processor and chat template; no tensor. Does not know plans; a plan's revision, for
which whole files are read, is compared in `model_check`.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from profiles.checkpoints.expected_shapes import check_shapes
from profiles.checkpoints.preprocessing import check_processor, check_tokenizer
from profiles.checkpoints.quantisation import find_quantisation
from profiles.checkpoints.weights import read_tensors
from profiles.error_text import one_line
from vhserve.errors import FlagRefused, TemplateBroken
from vhserve.server.preflight.flags import GivenFlags

_OF_FILES: Final = (None, "auto", "hf", "safetensors", "pt", "npcache", "fastsafetensors", "instanttensor")
"""Values of --load-format with which vLLM reads the folder's own weight files, and all of them."""


_GENERATION: Final = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")


def check_weight_files(name: str, folder: Path, config: dict[str, Any], flags: GivenFlags, *, supported: bool) -> None:
    """Refuse a folder whose weights are missing, damaged or of another model than its configuration.

    Parameters
    ----------
    name
        The model as the user called it.
    supported
        Whether it is of a kind whose tensors are known; else files are checked by themselves.

    Raises
    ------
    ModelBroken, ModelQuantised
    """
    if flags.get("--load-format") not in _OF_FILES:
        return
    tensors = read_tensors(folder)
    if supported and find_quantisation(config) is None and "--quantization" not in flags:
        check_shapes(name, config, tensors)


def check_input_files(name: str, folder: Path, flags: GivenFlags, *, supported: bool) -> None:
    """Refuse a folder without a tokenizer or, for a `supported` model, an image processor that can be read.

    Raises
    ------
    ModelBroken
    """
    if "--skip-tokenizer-init" in flags:
        return
    tokenizer = flags.get("--tokenizer")
    if tokenizer is None:
        check_tokenizer(name, folder)
    elif Path(tokenizer).is_dir():
        check_tokenizer(name, Path(tokenizer))
    if supported:
        check_processor(name, folder)


def check_chat_template(folder: Path | None, flags: GivenFlags) -> None:
    """Refuse a chat template that cannot be read or is no Jinja template: the one that is given, else the model's.

    Raises
    ------
    FlagRefused
        `--chat-template` names no file.
    TemplateBroken
        The template is malformed.
    """
    given = flags.get("--chat-template")
    if given is not None:
        _check_syntax(*_given_template(given))
        return
    own = None if folder is None else folder / "chat_template.jinja"
    if own is not None and own.is_file():
        _check_syntax(str(own), _read(own))


def _given_template(given: str) -> tuple[str, str]:
    """What a template that was given is called, and its text: of a file, one of vLLM's own, or the value itself."""
    spec = find_spec("vllm")
    parts = spec.submodule_search_locations if spec is not None else None
    shipped = [Path(part) / "transformers_utils" / "chat_templates" / given for part in parts or ()]
    for path in (Path(given), *shipped):
        if len(given) < 4096 and "\n" not in given and path.is_file():
            return str(path), _read(path)
    if any(character in given for character in "{}\n"):
        return "--chat-template", given
    raise FlagRefused(
        f"--chat-template {given}: no such file",
        expected="a file with a Jinja template, or a template",
        fix="correct --chat-template",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text in UTF-8"
        raise TemplateBroken(f"{path}: {reason}", expected="a Jinja template", fix="restore the file") from error


def _check_syntax(name: str, text: str) -> None:
    from jinja2 import TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
    # transformers adds this tag, which marks what an assistant says; its content is template like the rest.
    text = _GENERATION.sub("", text)
    try:
        environment.parse(text)
    except TemplateSyntaxError as error:
        raise TemplateBroken(
            f"chat template {name}, line {error.lineno}: {one_line(str(error.message), 120)}",
            expected="a Jinja template",
            fix="correct it, or give another with --chat-template",
        ) from error
