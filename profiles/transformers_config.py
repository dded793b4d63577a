"""Reads a decoder's sizes and length off a transformers configuration, by attribute access alone.

For transformers' and vLLM's users of such a configuration alike. Does not know either library, torch, or how many
tokens an image becomes.
"""

from typing import Any, Final

from profiles.geometry import ModelGeometry


def decoder_geometry(config: Any, image_tokens: int) -> ModelGeometry:
    """Geometry of the text decoder of a transformers configuration.

    Parameters
    ----------
    config
        A `transformers.PreTrainedConfig`, of a vision-language model or of a decoder alone.
    image_tokens
        Usual number of tokens of one image, which depends on the model family; passed on as it is.
    """
    text = config.get_text_config()
    return ModelGeometry(
        layers=text.num_hidden_layers,
        query_heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads or text.num_attention_heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        hidden_size=text.hidden_size,
        image_tokens=image_tokens,
    )


_SCALED_ALREADY: Final = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")
"""Kinds of RoPE whose configuration gives the length after scaling; vLLM takes the same for so."""


def context_length(config: Any) -> int | None:
    """Tokens that a decoder of a transformers configuration takes, of prompt and reply; None where it does not say.

    What vLLM takes for `--max-model-len` unless it is told otherwise.
    """
    text = config.get_text_config()
    positions: int | None = getattr(text, "max_position_embeddings", None)
    if positions is None:
        return None
    rope = getattr(text, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default")
    if kind == "longrope":
        return int(getattr(text, "original_max_position_embeddings", None) or positions)
    return int(positions if kind in _SCALED_ALREADY else positions * (rope.get("factor") or 1.0))
