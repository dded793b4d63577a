"""What a treatment is: which image blocks a head sees while the prompt and the reply are computed.

Everything else follows from it: what the KV cache keeps, what a plan saves, the mask in transformers. Standard library
only. Does not know which treatments there are, blocks of a real cache, or tensors.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Phase = Literal["prompt", "reply"]
"""While the tokens of the prompt are computed, and while those of the reply are."""
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


@dataclass(frozen=True)
class ImageBlocks:
    """Some of the image blocks of each image, chosen by a block's number within its image, from 0.

    Attributes
    ----------
    stride
        Every ``stride``-th block, from the first; 1: all of them; None: none.

    >>> [ImageBlocks(stride).count(7) for stride in (1, 2, 4, None)]
    [7, 4, 2, 0]
    """

    stride: int | None

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride is {self.stride}: expected 1 or more, or None")

    def count(self, blocks: int) -> int:
        """How many blocks of an image with so many they are."""
        return 0 if self.stride is None else -(-blocks // self.stride)

    def has(self, number: int) -> bool:
        """Whether the block of this number is one of them."""
        return self.stride is not None and number % self.stride == 0

    def includes(self, others: "ImageBlocks") -> bool:
        """Whether all of the others are among these."""
        return others.stride is None or (self.stride is not None and others.stride % self.stride == 0)


ALL_BLOCKS: Final = ImageBlocks(1)
NO_BLOCKS: Final = ImageBlocks(None)


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """A treatment of a query head.

    A head that is computed attends to every earlier token outside image blocks, and to the image blocks that it sees in
    the phase of the querying position. A query inside an image block that it does not see puts out zero.

    Attributes
    ----------
    name
        In plans, flags and labels of metrics.
    label
        In tables, messages and figures.
    phrase
        Behind "heads" in titles.
    description
        One line for the user: what happens to the head.
    computed
        False: the head has no weights and no KV cache, and puts out a constant (zero, or the plan's compensation).
    seen_in_prompt, seen_in_reply
        Image blocks that positions of the prompt, and of the reply, see. What is seen in the reply must have been seen
        in the prompt, or it would not be in the KV cache.
    budget
        Field of a plan's `selection` that counts these heads, and flag of ``vhserve plan``; None where heads are not
        chosen by a budget.
    colour, hatch
        Of a head in figures, as matplotlib takes them; the hatch tells treatments apart in black and white.
    """

    name: str
    label: str
    phrase: str
    description: str
    computed: bool = True
    seen_in_prompt: ImageBlocks = ALL_BLOCKS
    seen_in_reply: ImageBlocks = ALL_BLOCKS
    budget: str | None = None
    colour: str
    hatch: str

    def __post_init__(self) -> None:
        if not self.seen_in_prompt.includes(self.seen_in_reply):
            raise ValueError(f"{self.name}: replies cannot see image blocks that the prompt does not see")

    def seen(self, phase: Phase) -> ImageBlocks:
        """Image blocks that positions of a phase see."""
        return self.seen_in_prompt if phase == "prompt" else self.seen_in_reply

    def kept(self, phase: Phase) -> ImageBlocks:
        """Image blocks that the KV cache keeps in a phase; text is kept by every head that is computed."""
        return self.seen(phase) if self.computed else NO_BLOCKS

    @property
    def is_full(self) -> bool:
        """Whether the head stays as the model has it."""
        return self.computed and self.seen_in_prompt == self.seen_in_reply == ALL_BLOCKS

    @property
    def is_masked(self) -> bool:
        """Whether the head is computed, but does not see everything."""
        return self.computed and not self.is_full

    @property
    def changes_prompt(self) -> bool:
        """Whether the prompt, and with it the first token of a reply, is computed in another way."""
        return not self.computed or self.seen_in_prompt != ALL_BLOCKS

    @property
    def evicts(self) -> bool:
        """Whether image blocks that the prompt saw leave the KV cache when it is computed."""
        return self.computed and self.seen_in_prompt != self.seen_in_reply

    @property
    def flag(self) -> str:
        """The budget's flag of ``vhserve plan``, without its dashes; empty where there is none."""
        return (self.budget or "").replace("_", "-")
