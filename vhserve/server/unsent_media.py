"""Pictures and other media that an API server has processed, kept until its engine has them.

Owns which of them are kept, and the middleware that makes an API server send them again until then. Does not know how
vLLM's caches work.
"""

from collections import OrderedDict
from threading import Lock
from typing import Any, Final

from vhserve.compat.requests import send_media_until_sent
from vhserve.server.at_start import AtStart

MAX_BYTES: Final = 256 << 20
"""How much is kept. What is dropped is processed again when it is needed."""


class UnsentMedia:
    """Processed media by their keys, bounded in bytes; may be used by several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._bytes, self._lock = max_bytes, 0, Lock()
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def keep(self, key: str, item: Any, size: int) -> None:
        """Keep an item of `size` bytes, in place of another with its key; nothing is dropped for it yet."""
        with self._lock:
            self._remove(key)
            self._kept[key] = item, size
            self._bytes += size

    def get(self, key: str) -> Any | None:
        """The item, or None where it is not kept, or no longer."""
        with self._lock:
            return self._kept.get(key, (None, 0))[0]

    def forget(self, key: str) -> None:
        """Keep it no longer; it may be unknown."""
        with self._lock:
            self._remove(key)

    def drop_excess(self) -> list[str]:
        """Drop what was kept first until the rest is within the bound, and return its keys."""
        dropped = list[str]()
        with self._lock:
            while self._bytes > self._max_bytes:
                dropped.append(next(iter(self._kept)))
                self._remove(dropped[-1])
        return dropped

    def _remove(self, key: str) -> None:
        self._bytes -= self._kept.pop(key, (None, 0))[1]


class MediaDelivery(AtStart):
    """Keeps pictures until an engine has been sent them."""

    def act(self, app: Any) -> None:
        send_media_until_sent(app.state.engine_client, UnsentMedia())
