"""Bodies of requests: a picture of noise that no cache knows, or one of a pool, or none, and words drawn at random.

The same seed, turn, client and number give the same bytes. Owns what is sent; does not know when, or to which server.

PNG is written here and not by Pillow, whose fastest takes ten times as long as stored blocks do: whatever is spent here
delays the clock of every stream of the process.
"""

import base64
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vhserve.loadtest.workload import Workload

Kind = Literal["image", "repeated", "text"]

WORDS = tuple(
    "how many red green blue yellow circle square triangle cross are there in the picture what colour shape is "  # noqa: SIM905
    "things of any like one region".split()
)
"""Words that every tokenizer has, the demo model's too, as one token each or few."""

_PLACE = "@picture@"


@dataclass(frozen=True)
class Payload:
    """One request: its body as JSON, what kind it is, and after how many tokens the client drops it (`None`: never)."""

    body: bytes
    kind: Kind
    abort_after: int | None


class Payloads:
    """Makes the bodies of one process's requests.

    Parameters
    ----------
    load
        What to send; its seed must be set.
    place
        Further numbers that make this process's pictures its own, such as turn and client.
    """

    def __init__(self, load: Workload, place: tuple[int, ...] = ()) -> None:
        if load.seed is None:
            raise ValueError("payloads need a seed")
        self._load, self._place = load, (load.seed, *place)
        rng = np.random.default_rng([load.seed, 0])
        self._noise = rng.integers(0, 256, (load.image_size, load.image_size, 3), dtype=np.uint8)
        seeds = [np.random.default_rng([load.seed, 1, number]) for number in range(load.pool)]
        self._pool = [self._picture(one) for one in seeds] if load.repeated_share else []

    def make(self, number: int) -> Payload:
        """The request with this number."""
        load = self._load
        rng = np.random.default_rng([2, number, *self._place])
        kind: Kind = "text" if rng.random() >= load.image_share else "image"
        if kind == "image" and rng.random() < load.repeated_share:
            kind = "repeated"
        abort_after = int(rng.integers(1, load.output_tokens + 1)) if rng.random() < load.abort_share else None
        words = " ".join(WORDS[at] for at in rng.integers(0, len(WORDS), load.prompt_words))
        if kind == "text":
            return Payload(json.dumps(self._request(words)).encode(), kind, abort_after)
        picture = self._pool[int(rng.integers(load.pool))] if kind == "repeated" else self._picture(rng)
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PLACE}"}},
            {"type": "text", "text": words},
        ]
        before, after = json.dumps(self._request(content)).encode().split(_PLACE.encode())
        return Payload(b"".join((before, picture, after)), kind, abort_after)

    def _request(self, content: Any) -> dict[str, Any]:
        load = self._load
        request = {
            "model": load.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": load.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not load.free_length:
            # vLLM's own fields: a reply of exactly this length, every token of it visible in the stream.
            request |= {"ignore_eos": True, "min_tokens": load.output_tokens, "skip_special_tokens": False}
        return request

    def _picture(self, rng: np.random.Generator) -> bytes:
        # Another tint and another place of the same noise: as good as new to any cache, at a fifth of the cost.
        tint = rng.integers(0, 256, 3, dtype=np.uint8)
        rows, columns = rng.integers(0, self._load.image_size, 2)
        moved = np.roll(self._noise, (int(rows), int(columns)), (0, 1))
        size = self._load.image_size
        # Whole rows at a time: numpy takes 80 times as long to add three numbers to every pixel.
        tinted = moved.reshape(size, 3 * size) + np.tile(tint, size)
        return base64.b64encode(png(tinted.reshape(size, size, 3)))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Write pixels of shape `(height, width, 3)` as an uncompressed PNG (ISO/IEC 15948)."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.data, 0)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(data, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(data)), name, data, struct.pack(">I", check)))
