"""Where the language decoder stands inside a LLaVA model of transformers.

Owns the path to its layers. Does not know what is done with them.
"""

from torch import nn


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a LLaVA, LLaVA-NeXT or ViP-LLaVA model, none of its vision tower."""
    return model.model.language_model.layers  # type: ignore[union-attr, return-value]  # nn.Module types no children
