"""Reads `config.json` and a decoder's sizes in it, without transformers.

Owns the defaults of the decoders that LLaVA models have: a published configuration names only what differs from them.
Does not know image tokens or tensors.
"""

import json
from pathlib import Path
from typing import Any, Final

from profiles.errors import ModelBroken
from profiles.geometry import ModelGeometry

Json = dict[str, Any]

DECODER_DEFAULTS: Final[dict[str, dict[str, int | None]]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": None,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
    },
    "phi3": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
    },
}
"""Values of a decoder's configuration that transformers fills in, by `model_type`; None where it derives them."""

_WITH_TEXT_CONFIG: Final = ("llava", "llava_next", "vipllava")
"""Models whose decoder has a configuration of its own, a Llama's where none is given."""


def read_json(path: Path) -> Json:
    """Read a JSON object.

    Raises
    ------
    ModelBroken
        It is missing, unreadable, cut off or no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no JSON, or cut off"
        raise ModelBroken(f"{path}: {reason}", expected="a JSON object", fix="fetch or save the model again") from error
    if not isinstance(found, dict):
        raise ModelBroken(f"{path} holds no object", expected="a JSON object", fix="fetch or save the model again")
    return found


def decoder_configuration(config: Json) -> Json:
    """The part of a configuration that is about the text decoder, with transformers' defaults where they are known."""
    text = config.get("text_config")
    if text is None:
        text = {} if config.get("model_type") in _WITH_TEXT_CONFIG else config
    if not isinstance(text, dict):
        raise ModelBroken("text_config in config.json is no object", expected="an object", fix="restore config.json")
    kind = text.get("model_type", "llama")
    return {**DECODER_DEFAULTS.get(kind, {}), "model_type": kind, **text}


_SCALED_ALREADY: Final = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""As in `profiles.transformers_config`."""


def context_length(config: Json) -> int | None:
    """Tokens that a `config.json` allows, of prompt and reply, as `profiles.transformers_config` finds it.

    Returns
    -------
    None where the file does not say, or says it in a way that is not known here.
    """
    text = decoder_configuration(config)
    positions, rope = text.get("max_position_embeddings"), text.get("rope_parameters") or text.get("rope_scaling") or {}
    if type(positions) is not int or positions < 1 or not isinstance(rope, dict):
        return None
    kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor") or 1.0
    if kind == "longrope":
        original = text.get("original_max_position_embeddings") or positions
        return original if type(original) is int else None
    if kind in _SCALED_ALREADY:
        return positions
    return int(positions * factor) if isinstance(factor, int | float) else None


def decoder_geometry(config: Json, image_tokens: int) -> ModelGeometry | None:
    """Geometry of the text decoder of a `config.json`, as `profiles.transformers_config.decoder_geometry` finds it.

    Returns
    -------
    None where a size is neither in the file nor a default that is known here.

    Raises
    ------
    ModelBroken
        A size is no positive integer.
    """
    text = decoder_configuration(config)
    try:
        layers, heads, hidden = (text[name] for name in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
    except KeyError:
        return None
    kv_heads = heads if text.get("num_key_value_heads") is None else text["num_key_value_heads"]
    sizes = {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": hidden}
    sizes |= {"num_key_value_heads": kv_heads, "head_dim": text.get("head_dim") or 1}
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ModelBroken(
                f"{name} in config.json is {size!r}", expected="a positive integer", fix="restore config.json"
            )
    if heads % kv_heads:
        raise ModelBroken(
            f"config.json has {heads} query heads for {kv_heads} KV heads",
            expected="as many query heads for each KV head",
            fix="restore config.json",
        )
    return ModelGeometry(
        layers=layers,
        query_heads=heads,
        kv_heads=kv_heads,
        head_size=text.get("head_dim") or hidden // heads,
        hidden_size=hidden,
        image_tokens=image_tokens,
    )
