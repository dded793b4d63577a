"""A video's frames before they are decoded: how many a loader takes, and how large they are.

Does not know limits. Importing it is cheap.
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final

Admit = Callable[[tuple[int, int], int], None]
"""Takes frames' size, width and height, and their number; refuses them by an error."""

MAX_FRAMES: Final = 1_000_000
"""Of a file, by its header: loaders list frames before they read any."""


def counting_loader(loader: type, admit: Admit) -> type:
    """A video loader of vLLM's that has its frames admitted before it decodes them.

    Loaders that read files by themselves, without vLLM's decoders, have them admitted when they are decoded.

    Symptom
        A video of 32 MiB becomes frames of gigabytes in an API server.
    Cause
        vLLM bounds a frame's pixels, and its frames by number; the two together nowhere.
    Removal
        vLLM bounds the pixels of all frames that it takes of a video.
    """
    _watch_sizes()

    class Counting(loader):  # type: ignore[misc]  # a class that is known at run time
        @classmethod
        def load_bytes(cls, data: bytes, **options: Any) -> Any:
            frames = _Frames(admit)
            token = _current.set(frames)
            try:
                decoded = super().load_bytes(data, **options)
            finally:
                _current.reset(token)
            if not frames.admitted:
                number, height, width, *_ = decoded[0].shape
                admit((width, height), number)
            return decoded

        @classmethod
        def compute_frames_index_to_sample(cls, source: Any, target: Any, **options: Any) -> Any:
            if source.total_frames_num > MAX_FRAMES:
                raise ValueError(f"it has {source.total_frames_num} frames, which are more than {MAX_FRAMES}")
            found = super().compute_frames_index_to_sample(source, target, **options)
            if (frames := _current.get()) is not None:
                frames.note(number=len(found))
            return found

    return Counting


class _Frames:
    """Of one video: admitted once, as soon as their size and their number are known."""

    def __init__(self, admit: Admit) -> None:
        self._admit, self.admitted = admit, False
        self._size: tuple[int, int] | None = None
        self._number: int | None = None

    def note(self, size: tuple[int, int] | None = None, number: int | None = None) -> None:
        if self.admitted:
            return
        self._size, self._number = size or self._size, self._number if number is None else number
        if self._size is not None and self._number is not None:
            self._admit(self._size, self._number)
            self.admitted = True


_current: Final[ContextVar[_Frames | None]] = ContextVar("vhserve_video_frames", default=None)


def _watch_sizes() -> None:
    """Have vLLM's decoders say the size of frames, which they all check before they decode them; idempotent."""
    from vllm.multimodal.video_decoders import base

    check = base.check_frame_pixel_limit
    if hasattr(check, "vhserve_watched"):
        return

    @wraps(check)
    def check_frame_pixel_limit(width: int, height: int) -> None:
        frames = _current.get()
        if frames is None:
            check(width, height)
        else:
            frames.note(size=(width, height))

    check_frame_pixel_limit.vhserve_watched = True  # type: ignore[attr-defined]
    # Each decoder has the name from there, and is imported when a video asks for it.
    for name, module in list(sys.modules.items()):
        if name.startswith("vllm.multimodal.video_decoders") and hasattr(module, "check_frame_pixel_limit"):
            module.check_frame_pixel_limit = check_frame_pixel_limit  # type: ignore[attr-defined]
