"""The pictures of one request: which is which, and how many pixels they may have, each and together.

Owns the count of a request that is being answered, in a context variable which the middleware `picture_limits` sets for
every request and the media connector reads. Looks at sizes only; decodes nothing, and knows neither vLLM nor plans.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Final

from profiles.pictures.limits import MAX_PIXELS, MAX_REQUEST_PIXELS, Size, count, excess
from profiles.pictures.opening import UnreadablePicture
from profiles.pictures.resizing import ResizeRule


@dataclass(frozen=True)
class PixelLimits:
    """How many pixels pictures may have, as they are and as the model's processor resizes them before it crops.

    Attributes
    ----------
    image
        One of them.
    request
        All of a request together.
    """

    image: int = MAX_PIXELS
    request: int = MAX_REQUEST_PIXELS


class RequestPictures:
    """Counts the pictures of a request; may be used by several threads."""

    def __init__(self, limits: PixelLimits, rule: ResizeRule) -> None:
        self._limits, self._rule, self._lock = limits, rule, Lock()
        self._pictures = self._pixels = 0

    def next_number(self) -> int:
        """Number of the next picture, in the order of the request; the first is 1."""
        with self._lock:
            self._pictures += 1
            return self._pictures

    def admit(self, size: Size) -> None:
        """Count a picture's pixels, before it is decoded.

        Raises
        ------
        UnreadablePicture
            It is too large, or is one too many.
        """
        resized = self._rule.resized(size)
        if (wrong := excess(size, resized, self._limits.image)) is not None:
            raise UnreadablePicture(f"{wrong} (--max-image-pixels)")
        with self._lock:
            self._pixels += max(count(size), count(resized))
            pixels = self._pixels
        if pixels > self._limits.request:
            raise UnreadablePicture(
                f"with it the request's pictures have {pixels} pixels, counted as the model's processor resizes them, "
                f"which are more than {self._limits.request} (--max-request-pixels)"
            )


current: Final[ContextVar[RequestPictures | None]] = ContextVar("vhserve_request_pictures", default=None)
"""Those of the request that is being answered; `None` outside of a server."""
