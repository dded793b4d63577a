"""Reads a model's sizes off its transformers configuration, whoever has loaded that. Imports neither vLLM nor torch."""

from typing import Any

from profiles.geometry import ModelGeometry


def geometry_of(config: Any, image_tokens: int) -> ModelGeometry:
    """Geometry of a transformers LLaVA configuration; `image_tokens` is passed on, since no server depends on it."""
    text = config.get_text_config()
    return ModelGeometry(
        layers=text.num_hidden_layers,
        query_heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads or text.num_attention_heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        hidden_size=text.hidden_size,
        image_tokens=image_tokens,
    )
