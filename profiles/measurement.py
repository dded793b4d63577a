"""What was measured with a pruning plan, or beside it without.

Does not know how it is measured.
"""

from typing import ClassVar, Final, Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from profiles.errors import WrongValue
from profiles.geometry import Name
from profiles.strict import Strict, defect

ROUNDING: Final = 1e-6


class Measurement(Strict):
    """Accuracy measured with the plan (arm ``pruned``) or beside it without (``baseline``).

    Attributes
    ----------
    family
        Question family, or ``all``.
    accuracy, low, high
        ``correct / samples`` and its 95% Wilson interval, all 0 to 1.
    block_size, dtype
        Tokens of a KV block and dtype of the weights of the server that answered; None where it did not say.
    shared_pictures
        How many of the pictures measured on are among those that the plan's heads were chosen by; None where that is
        not known.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"block_size", "dtype", "shared_pictures"})

    dataset: Name
    arm: Literal["baseline", "pruned"]
    family: Name
    samples: PositiveInt
    correct: NonNegativeInt
    accuracy: float
    low: float
    high: float
    block_size: PositiveInt | None = None
    dtype: Name | None = None
    shared_pictures: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.correct > self.samples:
            raise defect(WrongValue, "correct", f"is {self.correct}", expected=f"at most {self.samples} (samples)")
        if abs(self.accuracy - self.correct / self.samples) > ROUNDING:
            raise defect(WrongValue, "accuracy", f"is {self.accuracy}", expected="correct / samples")
        if not -ROUNDING <= self.low <= self.accuracy + ROUNDING:
            raise defect(WrongValue, "low", f"is {self.low}", expected="0 to accuracy")
        if not self.accuracy - ROUNDING <= self.high <= 1 + ROUNDING:
            raise defect(WrongValue, "high", f"is {self.high}", expected="accuracy to 1")
        return self
