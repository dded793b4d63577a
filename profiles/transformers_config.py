"""Reads a decoder's sizes off a transformers configuration, by attribute access alone.

For transformers' and vLLM's users of such a configuration alike. Does not know either library, torch, or how many
tokens an image becomes.
"""

from typing import Any

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
