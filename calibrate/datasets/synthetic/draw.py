"""Drawing: from a scene to 96 x 96 RGB pixels, one object in a cell of 8 x 8.

Objects are fixed 6 x 6 glyphs in the middle of their cell; the outermost ring of a cell stays free for the outline of
a region. There is one renderer, for training and for samples alike. Knows no questions.
"""

import numpy as np
from numpy.typing import NDArray

from calibrate.datasets.synthetic.scene import Scene
from calibrate.datasets.synthetic.vocabulary import CELL, GRID, SIZE

_COLOURS = np.array([(215, 45, 40), (45, 175, 65), (55, 85, 225), (225, 205, 55)])
_OUTLINE = 255

_DRAWINGS = (
    (".####.", "######", "######", "######", "######", ".####."),
    ("######", "######", "######", "######", "######", "######"),
    ("..##..", "..##..", ".####.", ".####.", "######", "######"),
    ("..##..", "..##..", "######", "######", "..##..", "..##.."),
)


def _glyph(rows: tuple[str, ...]) -> NDArray[np.bool_]:
    return np.pad(np.array([[c == "#" for c in row] for row in rows]), (CELL - len(rows)) // 2)


_GLYPHS = np.stack([_glyph(rows) for rows in _DRAWINGS])[..., None]
_RING = np.pad(np.zeros((CELL - 2, CELL - 2), dtype=bool), 1, constant_values=True)


def draw(scene: Scene, outlined: int | None = None) -> NDArray[np.uint8]:
    """Draw a scene.

    Parameters
    ----------
    scene
        What to draw.
    outlined
        Cell to draw a thin white outline around, inside its own border pixels; `None` for no outline.

    Returns
    -------
    Pixels, shape `(96, 96, 3)`: row, column, red-green-blue.
    """
    tiles = np.empty((GRID * GRID, CELL, CELL, 3), dtype=np.int64)
    tiles[:] = scene.background
    full = np.flatnonzero(scene.kinds >= 0)
    kinds = scene.kinds[full]
    paint = (_COLOURS[kinds // 4] + scene.tints[full])[:, None, None, :]
    tiles[full] = np.where(_GLYPHS[kinds % 4], paint, scene.background)
    if outlined is not None:
        tiles[outlined][_RING] = _OUTLINE
    grid = tiles.reshape(GRID, GRID, CELL, CELL, 3).swapaxes(1, 2)
    return np.clip(grid, 0, 255).astype(np.uint8).reshape(SIZE, SIZE, 3)
