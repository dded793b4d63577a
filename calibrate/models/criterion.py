"""Whether the heads of a model can be looked at: what its decoder must be, asked of the built model, not of its name.

Owns the criteria and the one line that names the one that fails. Needs no weights: a model on the meta device will do.
Does not know files.
"""

from collections.abc import Iterator
from typing import Any, Final

from torch import nn

from calibrate.errors import UnsupportedModel
from calibrate.models.decoder import decoder_layers, find_attentions, find_decoder

_CHANGED_LOGITS: Final = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Fields of a decoder's configuration that change its logits behind the output embedding."""


def check_heads(name: str, model: Any) -> None:
    """Refuse a model whose decoder is none of causal self-attention with a key and a value for every KV head.

    Parameters
    ----------
    name
        The model as the user called it.
    model
        As transformers builds it, a `ForConditionalGeneration`.

    Raises
    ------
    UnsupportedModel
    """
    wrong = next(_defects(model), None)
    if wrong is not None:
        raise UnsupportedModel(
            f"model {name} cannot be looked into: {wrong}",
            expected="decoder layers of causal self-attention, each with own keys and values for 2 KV heads or more",
            fix="choose another model, see `vhserve models`",
        )


def _defects(model: Any) -> Iterator[str]:
    """What is wrong, most general first."""
    decoder: Any = find_decoder(model)
    if not isinstance(getattr(decoder, "layers", None), nn.ModuleList) or not hasattr(decoder, "norm"):
        yield f"its decoder ({type(decoder).__name__}) has no layers and final norm"
        return
    if model.get_output_embeddings() is None:
        yield "it has no output embedding"
    text = decoder.config
    for field in _CHANGED_LOGITS:
        if getattr(text, field, None) not in (None, 1, 1.0):
            yield f"its logits are changed behind the output embedding ({field})"
    for layer, module in enumerate(decoder_layers(model)):
        for wrong in _layer_defects(module, text):
            yield f"layer {layer} {wrong}"


def _layer_defects(layer: nn.Module, text: Any) -> Iterator[str]:
    found = find_attentions(layer)
    if len(found) != 1:
        kinds = ", ".join(type(child).__name__ for child in layer.children())
        yield f"has {len(found) or 'no'} attention modules with a KV cache ({kinds})"
        return
    attention: Any = found[0]
    kind = type(attention).__name__
    if hasattr(attention, "kv_lora_rank") or hasattr(attention, "kv_b_proj"):
        yield f"keeps one latent for all heads ({kind}, MLA)"
        return
    if not getattr(attention, "is_causal", False) or "cross" in kind.lower():
        yield f"is no causal self-attention ({kind})"
    if getattr(attention, "is_kv_shared_layer", False):
        yield "takes keys and values of another layer"
    if getattr(attention, "sinks", None) is not None:
        yield f"has attention sinks ({kind})"
    if getattr(attention, "attn_logit_softcapping", None) is not None:
        yield f"caps the logits of attention ({kind}), which SDPA does not"
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads or text.num_attention_heads
    if kv_heads == 1:
        yield f"has one KV head for {heads} query heads"
    size = getattr(attention, "head_dim", None)
    group = getattr(attention, "num_key_value_groups", None)
    if not isinstance(size, int) or group != heads // kv_heads:
        yield f"has no heads of one size in groups of {heads // kv_heads} ({kind})"
        return
    expected = {
        "o_proj": ("in_features", heads),
        "q_proj": ("out_features", heads),
        "k_proj": ("out_features", kv_heads),
    }
    expected |= {"v_proj": ("out_features", kv_heads), "qkv_proj": ("out_features", heads + 2 * kv_heads)}
    for projection, (side, count) in expected.items():
        width = getattr(getattr(attention, projection, None), side, None)
        if width is not None and width != count * size:
            yield f"has a {projection} of width {width} for {count} heads of size {size} ({kind})"
