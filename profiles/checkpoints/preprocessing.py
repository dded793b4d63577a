"""The files that turn text and pictures into a model's input: tokenizer, image processor, chat template.

Checks that they are there and can be read. Does not know what they do.
"""

from pathlib import Path
from typing import Final

from profiles.checkpoints.configuration import read_json
from profiles.errors import ModelBroken, ModelFilesMissing

TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "tekken.json")
"""Files that hold a tokenizer's vocabulary; one is enough."""

PROCESSORS: Final = ("processor_config.json", "preprocessor_config.json")
"""Files that say how pictures are prepared; one is enough."""


def check_tokenizer(name: str, folder: Path) -> None:
    """Refuse a folder without a readable tokenizer.

    Raises
    ------
    ModelBroken
    """
    _one_of(name, folder, "tokenizer", TOKENIZERS)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).exists():
            read_json(folder / file)
    if (folder / "tokenizer.json").exists() and "model" not in read_json(folder / "tokenizer.json"):
        raise ModelBroken(
            f"{folder / 'tokenizer.json'} holds no tokenizer",
            expected="the field model",
            fix="fetch or save the model again",
        )


def check_processor(name: str, folder: Path) -> None:
    """Refuse a folder without a readable image processor.

    Raises
    ------
    ModelBroken
    """
    _one_of(name, folder, "image processor", PROCESSORS)
    for file in PROCESSORS:
        if (folder / file).exists():
            read_json(folder / file)


def _one_of(name: str, folder: Path, what: str, files: tuple[str, ...]) -> None:
    if not any((folder / file).is_file() for file in files):
        raise ModelFilesMissing(
            f"model {name} has no {what} in {folder}",
            expected=f"one of {', '.join(files)}",
            fix="fetch or save the model again, with its processor",
        )
