"""The pictures of one request and the frames of its videos: how many pixels they may have, each and together.

Owns the count of a request that is being answered, in a context variable which the middleware `picture_limits` sets for
every request and the media connector reads. Looks at sizes only; decodes nothing, and knows neither vLLM nor plans.
"""

from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Final

from profiles.pictures.limits import MAX_PIXELS, MAX_REQUEST_PIXELS, Size, count, excess, shown
from profiles.pictures.opening import UnreadablePicture
from profiles.pictures.resizing import ResizeRule


@dataclass(frozen=True)
class PixelLimits:
    """How many pixels pictures may have, as they are and as the model's processor resizes them before it crops.

    Attributes
    ----------
    image
        One of them, or one frame of a video.
    request
        All of a request together, with all frames that are taken of its videos.
    """

    image: int = MAX_PIXELS
    request: int = MAX_REQUEST_PIXELS


class RequestPictures:
    """Counts the pictures of a request; may be used by several threads.

    Parameters
    ----------
    rule, frame_rule
        How the model's processor resizes pictures, and frames.
    """

    def __init__(self, limits: PixelLimits, rule: ResizeRule, frame_rule: ResizeRule | None = None) -> None:
        self._limits, self._rule, self._lock = limits, rule, Lock()
        self._frame_rule = frame_rule or ResizeRule()
        self._numbers: Counter[str] = Counter()
        self._pixels = 0

    def next_number(self, what: str = "image") -> int:
        """Number of the next picture or video, in the order of the request; the first is 1."""
        with self._lock:
            self._numbers[what] += 1
            return self._numbers[what]

    def admit(self, size: Size) -> None:
        """Count a picture's pixels, before it is decoded.

        Raises
        ------
        UnreadablePicture
            It is too large, or is one too many.
        """
        self._admit(size, self._rule.resized(size), 1, "it")

    def admit_frames(self, size: Size, number: int = 1) -> None:
        """Count the pixels of a video's frames that are taken, before they are decoded.

        Raises
        ------
        UnreadablePicture
            They are too large, or too many.
        """
        frames = f"{number} frame{'' if number == 1 else 's'} of {shown(size)}"
        self._admit(size, self._frame_rule.resized(size), number, frames)

    def _admit(self, size: Size, resized: Size, number: int, them: str) -> None:
        if (wrong := excess(size, resized, self._limits.image)) is not None:
            raise UnreadablePicture(f"{wrong} (--max-image-pixels)")
        with self._lock:
            self._pixels += number * max(count(size), count(resized))
            pixels = self._pixels
        if pixels > self._limits.request:
            raise UnreadablePicture(
                f"with {them} the request's pictures have {pixels} pixels, counted as the model's processor resizes "
                f"them, which are more than {self._limits.request} (--max-request-pixels)"
            )


current: Final[ContextVar[RequestPictures | None]] = ContextVar("vhserve_request_pictures", default=None)
"""Those of the request that is being answered; `None` outside of a server."""
