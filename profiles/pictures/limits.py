"""How many pixels a picture may have, and the words for one that has more.

Arithmetic on what a file's header says; decodes nothing. Does not know how a processor resizes (`resizing`).
"""

from typing import Final

Size = tuple[int, int]
"""Width and height, in pixels."""

MAX_PIXELS: Final = 50_000_000
"""Of one picture, width times height, unless a server is told otherwise."""

MAX_REQUEST_PIXELS: Final = 100_000_000
"""Of all pictures of a request together, unless a server is told otherwise: eight of a phone's usual 12 megapixels."""


def count(size: Size) -> int:
    """Pixels of a picture of that size."""
    return size[0] * size[1]


def excess(size: Size, resized: Size, limit: int) -> str | None:
    """What is too large about a picture, in words without an end; `None` where nothing is.

    Parameters
    ----------
    size
        As it is.
    resized
        As the processor makes it, before it crops.
    limit
        Most pixels of either.
    """
    if count(size) > limit:
        return f"it has {shown(size)} pixels, {count(size)} in all, which are more than {limit}"
    if count(resized) > limit:
        return (
            f"it has {shown(size)} pixels, of which the model's processor makes {shown(resized)}, "
            f"{count(resized)} in all, which are more than {limit}"
        )
    return None


def shown(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
