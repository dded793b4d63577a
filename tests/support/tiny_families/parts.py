"""What the tiny checkpoints of all families are made of: tokenizers of words, random weights, files as on the Hub.

Owns how these are put together. Knows no family and no geometry.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tiny_models import fill
from tokenizers import Regex, Tokenizer, models
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from calibrate.datasets.synthetic.vocabulary import WORDS

IMAGE: Final = 4
"""Token id of the image token in every family's vocabulary, as in the tiny LLaVA models."""

_TOKENS: Final = r"\n+|\w+|[^\w\s]+"


def word_tokenizer(
    beginning: str, end: str, padding: str, image: str, others: Sequence[str], **options: Any
) -> PreTrainedTokenizerFast:
    """One token a word, run of punctuation or run of line breaks; knows every word of the synthetic world.

    Parameters
    ----------
    beginning, end, padding, image
        The family's special tokens; ids 1 to 4, behind `<unk>`.
    others
        Its further special tokens, from 5 on.
    options
        Of `PreTrainedTokenizerFast`, such as `extra_special_tokens`.
    """
    special = ["<unk>", beginning, end, padding, image, *others]
    words = [*special, "\n", "\n\n", "user", "assistant", "system", "User", "Assistant", *WORDS]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = Split(Regex(_TOKENS), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        bos_token=beginning,
        eos_token=end,
        pad_token=padding,
        additional_special_tokens=[image, *others],
        padding_side="left",
        model_max_length=2048,
        **options,
    )


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The arguments of a decoder's configuration that follow from its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


@torch.no_grad()
def write_checkpoint(
    path: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    *,
    seed: int = 0,
    names: Sequence[tuple[str, str]] = (),
    tensors: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, weight: weight,
    config: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config,
) -> Path:
    """Fill a model with random weights and write it in float32, in the files that the Hub's checkpoints have.

    Parameters
    ----------
    names
        Beginnings of transformers' tensor names and what the Hub has in their place; the first that fits.
    tensors
        From a tensor's name in transformers and the tensor to what the Hub has.
    config
        From the configuration as transformers writes it to what the Hub has.

    Returns
    -------
    The folder, for `from_pretrained` and for vLLM.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        fill(name, weight, generator)
    path.mkdir(parents=True, exist_ok=True)
    weights = {_renamed(name, names): tensors(name, weight).contiguous() for name, weight in model.state_dict().items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    processor.save_pretrained(path)
    file = path / "config.json"
    file.write_text(json.dumps(config(json.loads(file.read_text())), indent=2))
    return path


def rope_as_published(text: dict[str, Any]) -> dict[str, Any]:
    """A decoder's configuration with its rotary embedding as releases before transformers 5 wrote it."""
    rope = dict(text["rope_parameters"])
    others = {key: value for key, value in text.items() if key != "rope_parameters"}
    return {**others, "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}


def _renamed(name: str, names: Sequence[tuple[str, str]]) -> str:
    return next((hub + name.removeprefix(ours) for ours, hub in names if name.startswith(ours)), name)
