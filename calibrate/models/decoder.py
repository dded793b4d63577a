"""Where the language decoder stands in a vision-language model of transformers, and where attention is in its layers.

Owns the paths to them, found by what a module has and not by its class. Does not know what is done with them.
"""

from typing import Any

from torch import Tensor, nn


def find_decoder(model: Any) -> nn.Module:
    """The language model without its output embedding, none of the vision tower; it has `layers` and a final `norm`."""
    return model.get_decoder()


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a vision-language model, in order."""
    return find_decoder(model).layers  # type: ignore[return-value]  # nn.Module types no children


def find_attentions(layer: nn.Module) -> list[nn.Module]:
    """Modules directly inside a layer that bring the outputs of heads together by an `o_proj`."""
    return [child for child in layer.children() if hasattr(child, "o_proj")]


def attention_of(layer: nn.Module) -> Any:
    """The attention module of a decoder layer that `calibrate.models.criterion` has passed."""
    (attention,) = find_attentions(layer)
    return attention


def logits_of_state(model: Any, hidden: Tensor) -> Tensor:
    """Logits, float32, of what the last layer puts out, `(..., hidden)`: final norm and output embedding."""
    return output_logits(model, find_decoder(model).norm(hidden))  # type: ignore[operator]  # nn.Module types no children


def output_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits, float32, of what the decoder puts out behind its final norm, `(..., hidden)`."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    return logits.float()
