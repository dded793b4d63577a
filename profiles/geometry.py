"""What a model is, as far as heads are concerned: its sizes, its identity, and the three stages of its layers.

Does not know how to find these out: `calibrate` reads them off a transformers model, `vhserve` off vLLM's config.
"""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from profiles.errors import WrongValue
from profiles.names import STAGES, Granularity, Stage, StageOrAll
from profiles.strict import Strict, defect

Name = Annotated[str, Field(min_length=1)]


class ModelRef(Strict):
    """Which model a document is about.

    Attributes
    ----------
    name
        What the user can load again: an alias, Hub id or path. Never compared.
    revision
        Hub commit, or the digest ``sha256v2:…`` of a local folder (see `profiles.fingerprint`).
    architecture
        Class name in the model's config, such as ``LlavaForConditionalGeneration``.
    """

    name: Name
    revision: Name
    architecture: Name


class ModelGeometry(Strict):
    """Sizes of the language decoder.

    Attributes
    ----------
    layers, query_heads, kv_heads, head_size, hidden_size
        Decoder layers; query and KV heads of each layer; width of a head; width of the residual stream.
    image_tokens
        Usual number of image tokens of one image; describes prompts, not weights.
    """

    layers: PositiveInt
    query_heads: PositiveInt
    kv_heads: PositiveInt
    head_size: PositiveInt
    hidden_size: PositiveInt
    image_tokens: NonNegativeInt

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.query_heads % self.kv_heads:
            found = f"is {self.kv_heads} with {self.query_heads} query heads"
            raise defect(WrongValue, "kv_heads", found, expected="a divisor of query_heads")
        return self

    @property
    def group_size(self) -> int:
        """Query heads that share one KV head; 1 for multi-head attention."""
        return self.query_heads // self.kv_heads

    @property
    def heads(self) -> int:
        """Query heads of the whole model."""
        return self.layers * self.query_heads

    def group(self, kv_head: int) -> range:
        """Query heads of one KV head."""
        return range(kv_head * self.group_size, (kv_head + 1) * self.group_size)

    @property
    def granularity(self) -> Granularity:
        """What heads are best treated by: whole KV groups where query heads share KV heads, which alone frees cache."""
        return "kv_group" if self.group_size > 1 else "query_head"

    def group_name(self, kv_head: int) -> str:
        """A KV group of a layer, for people.

        >>> sizes = {"layers": 2, "query_heads": 8, "head_size": 4, "hidden_size": 8, "image_tokens": 0}
        >>> ModelGeometry(kv_heads=2, **sizes).group_name(1)
        'group 1 (heads 4-7)'
        """
        heads = self.group(kv_head)
        return f"group {kv_head} (head{'s' if len(heads) > 1 else ''} {run_name(heads)})"


def run_name(heads: range) -> str:
    """Heads in a row: ``4-7``, or ``4``."""
    return f"{heads[0]}-{heads[-1]}" if len(heads) > 1 else str(heads[0])


def unit_words(size: int) -> str:
    """What heads are called that are treated, ranked or counted `size` query heads at a time.

    >>> unit_words(1), unit_words(4)
    ('heads', 'KV groups of 4 query heads')
    """
    return "heads" if size == 1 else f"KV groups of {size} query heads"


def stage_layers(stage: StageOrAll, layers: int) -> range:
    """Layers of a stage: thirds ``[0, L//3)``, ``[L//3, 2L//3)``, ``[2L//3, L)`` (the paper's split).

    >>> [list(stage_layers(stage, 7)) for stage in STAGES]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    cuts = {"early": (0, layers // 3), "middle": (layers // 3, 2 * layers // 3), "late": (2 * layers // 3, layers)}
    return range(*cuts.get(stage, (0, layers)))


def stage_of(layer: int, layers: int) -> Stage:
    """Stage that a layer belongs to.

    Raises
    ------
    IndexError
        There is no such layer.

    >>> [stage_of(layer, 3) for layer in range(3)]
    ['early', 'middle', 'late']
    """
    if not 0 <= layer < layers:
        raise IndexError(f"layer {layer} of a model with {layers} layers")
    return next(stage for stage in STAGES if layer in stage_layers(stage, layers))
