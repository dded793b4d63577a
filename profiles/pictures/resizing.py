"""How large an image processor makes a picture before it crops: arithmetic, so that it can be asked before decoding.

Owns the size rule of transformers' processors that resize by the shortest edge (CLIP's), whose other edge has no bound.
All others resize to sizes that their settings bound. Does not know transformers; reads a processor by attribute access.
"""

from dataclasses import dataclass
from typing import Any

from profiles.pictures.limits import Size


@dataclass(frozen=True)
class ResizeRule:
    """What a processor resizes pictures to.

    Attributes
    ----------
    shortest_edge
        Pixels that the shorter side gets, the other following in proportion; `None` for a processor that resizes
        otherwise, or not at all.
    """

    shortest_edge: int | None = None

    @classmethod
    def of(cls, image_processor: Any) -> "ResizeRule":
        """The rule of one of transformers' image processors, as both of its backends have it (`resize`).

        LLaVA-1.6's (with grid points) resizes into a grid and into a square, whatever its `size` is called.
        """
        size = getattr(image_processor, "size", None)
        if not getattr(image_processor, "do_resize", False) or hasattr(image_processor, "image_grid_pinpoints"):
            return cls()
        edges = {name: _entry(size, name) for name in ("shortest_edge", "longest_edge", "height", "max_height")}
        unbounded = edges["shortest_edge"] and not any(edges[name] for name in edges if name != "shortest_edge")
        return cls(edges["shortest_edge"] if unbounded else None)

    def resized(self, size: Size) -> Size:
        """Size that a picture of `size` has before it is cropped; `size` itself where that is bounded."""
        if self.shortest_edge is None:
            return size
        width, height = size
        long = int(self.shortest_edge * max(size) / min(size))
        return (self.shortest_edge, long) if width <= height else (long, self.shortest_edge)


def _entry(size: Any, name: str) -> int | None:
    return size.get(name) if isinstance(size, dict) else getattr(size, name, None)
