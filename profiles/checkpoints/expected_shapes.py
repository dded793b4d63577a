"""Do a checkpoint's tensors have the shapes that its configuration says? If not, they are another model's.

Owns the names and shapes of a Llama-like decoder's tensors in LLaVA checkpoints, of old and new releases of
transformers. Does not know files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from profiles.checkpoints.configuration import Json, decoder_configuration, decoder_geometry
from profiles.checkpoints.safetensors_header import Tensor
from profiles.errors import ModelBroken

DECODERS: Final = ("llama", "mistral", "qwen2")
"""`model_type` of decoders whose tensors are named here."""

_PREFIX: Final = re.compile(
    r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?(?=layers\.|embed_tokens\.|norm\.)|^model\."
)
_FEATURE_LAYERS: Final[dict[str, tuple[str, Any]]] = {
    "llava": ("vision_feature_layer", -2),
    "llava_next": ("vision_feature_layer", -2),
    "vipllava": ("vision_feature_layers", (-2, -5, -8, -11, 6)),
}
"""Where a configuration says which layers of the vision tower the projector gets, and transformers' default."""

_FLOATS: Final = ("F32", "BF16", "F16", "F64")

Shape = tuple[int, ...]


def check_shapes(name: str, config: Json, tensors: Mapping[str, Tensor]) -> None:
    """Compare a LLaVA checkpoint's decoder and projector with its configuration.

    Parameters
    ----------
    name
        The model as the user called it.
    tensors
        As `profiles.checkpoints.weights.read_tensors` found them; nothing is checked where there are none.

    Raises
    ------
    ModelBroken
        A tensor is missing or has another shape.
    ModelQuantised
        A weight of the decoder is of a type that only quantised weights have.
    """
    if not tensors or decoder_configuration(config)["model_type"] not in DECODERS:
        return
    found = {_PREFIX.sub("", tensor): value for tensor, value in tensors.items() if "vision" not in tensor}
    for tensor, shape in expected_shapes(config):
        one = found.get(tensor)
        if one is None:
            raise ModelBroken(
                f"the weights of {name} lack {tensor}",
                expected="the weights of its config.json",
                fix="fetch or save the model again",
            )
        if one.shape != shape or one.dtype not in _FLOATS:
            wrong = f"{list(one.shape)} of {one.dtype}" if one.dtype not in _FLOATS else str(list(one.shape))
            raise ModelBroken(
                f"the weights of {name} are another model's, or quantised: {tensor} is {wrong}",
                expected=f"{list(shape)} of floats, as config.json says",
                fix="put config.json and weights of one model together: fetch or save it again",
            )


def expected_shapes(config: Json) -> Iterator[tuple[str, Shape]]:
    """Names, without the decoder's prefix, and shapes of tensors that a checkpoint must have."""
    text, geometry = decoder_configuration(config), decoder_geometry(config, 0)
    if geometry is None:
        return
    hidden, inner = geometry.hidden_size, text.get("intermediate_size")
    queries, kv = geometry.query_heads * geometry.head_size, geometry.kv_heads * geometry.head_size
    if width := _vision_width(config):
        yield "multi_modal_projector.linear_1.weight", (hidden, width)
    if isinstance(text.get("vocab_size"), int):
        yield "embed_tokens.weight", (text["vocab_size"], hidden)
    yield "norm.weight", (hidden,)
    for layer in range(geometry.layers):
        attention = f"layers.{layer}.self_attn"
        yield f"{attention}.q_proj.weight", (queries, hidden)
        yield f"{attention}.k_proj.weight", (kv, hidden)
        yield f"{attention}.v_proj.weight", (kv, hidden)
        yield f"{attention}.o_proj.weight", (hidden, queries)
        if isinstance(inner, int):
            yield f"layers.{layer}.mlp.gate_proj.weight", (inner, hidden)
            yield f"layers.{layer}.mlp.up_proj.weight", (inner, hidden)
            yield f"layers.{layer}.mlp.down_proj.weight", (hidden, inner)


def _vision_width(config: Json) -> int | None:
    """Width of what the projector gets of the vision tower; None where it is not known."""
    vision, kind = config.get("vision_config", {}).get("hidden_size"), config.get("model_type")
    if not isinstance(vision, int) or kind not in _FEATURE_LAYERS:
        return None
    name, default = _FEATURE_LAYERS[kind]
    layers = config.get(name, default)
    return vision * (len(layers) if isinstance(layers, list | tuple) else 1)
