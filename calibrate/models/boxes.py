"""Which image tokens lie inside a box on the picture, by retracing what the image processor does to the pixels.

Owns LLaVA-1.5's resize and centre crop, LLaVA-1.6's whole image plus tiles, and pictures that become one grid of
tokens whatever their size (Qwen-VL, GLM-4.1V, Mistral3, Pixtral). Where the path of a pixel is not known exactly, as
with other families' tiles, there is no answer rather than a wrong one. Does not know prompts, models or scores.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers.image_processing_utils import select_best_resolution

from calibrate.datasets.sample import Box
from calibrate.models.image_tokens import fills_squares

Mask = npt.NDArray[np.bool_]


def token_grid(made: Mapping[str, Any], processor: Any) -> tuple[int, int] | None:
    """Rows and columns of the one grid of tokens that a processor made of a whole picture, stretched to its sides.

    Parameters
    ----------
    made
        What the processor made of one picture, by name.

    Returns
    -------
    None where it made something else, such as tiles.
    """
    if "image_grid_thw" in made:
        frames, rows, columns = (int(side) for side in made["image_grid_thw"][0])
        merged = processor.image_processor.merge_size
        return (rows // merged, columns // merged) if frames == 1 else None
    if "image_sizes" in made and hasattr(processor, "spatial_merge_size"):
        side = processor.patch_size * processor.spatial_merge_size
        height, width = (int(pixels) for pixels in made["image_sizes"][0])
        return height // side, width // side
    return None


def box_tokens(
    box: Box,
    image_size: tuple[int, int],
    processor: Any,
    config: Any,
    count: int,
    grid: tuple[int, int] | None = None,
) -> Mask | None:
    """Mark the image tokens of one picture that lie inside a box.

    A token counts when the centre of its patch is inside; if none is, every patch that the box touches counts.

    Parameters
    ----------
    box
        `(x0, y0, x1, y1)` in pixels of the picture.
    image_size
        Width and height of the picture.
    processor, config
        The model's.
    count
        Image tokens of the picture in the prompt.
    grid
        As `token_grid` finds it.

    Returns
    -------
    Shape `(count,)`, in the order of the tokens; `None` when the mapping is not known for this processor, or when the
    box was cropped away entirely.
    """
    if grid is not None:
        cells = _stretched(box, image_size, *grid)
        return cells if len(cells) == count and cells.any() else None
    if config.model_type != "llava_next" and not fills_squares(config):
        return None
    images, patch = processor.image_processor, config.vision_config.patch_size
    side = config.vision_config.image_size // patch
    if config.model_type == "llava_next":
        tokens = _tiled(box, image_size, images, config, side, patch)
    else:
        tokens = _cropped(box, image_size, images, side, patch)
        if tokens is not None and count == len(tokens) + 1:
            tokens = np.concatenate([[False], tokens])  # the class token, kept by the strategy "full"
    return tokens if tokens is not None and len(tokens) == count and tokens.any() else None


def _stretched(box: Box, image_size: tuple[int, int], rows: int, columns: int) -> Mask:
    """Tokens of a whole picture, in rows."""
    width, height = image_size
    return _cells(_move(box, columns / width, rows / height, 0, 0), rows, columns, 1).ravel()


def _cropped(box: Box, image_size: tuple[int, int], images: Any, side: int, patch: int) -> Mask | None:
    """Tokens of CLIP's processor: resize (shortest edge, or both edges), then crop the centre."""
    width, height = image_size
    if images.do_resize and images.size.shortest_edge:
        short, long = images.size.shortest_edge, int(images.size.shortest_edge * max(image_size) / min(image_size))
        new_width, new_height = (short, long) if width <= height else (long, short)
    elif images.do_resize and images.size.height and images.size.width:
        new_width, new_height = images.size.width, images.size.height
    elif not images.do_resize:
        new_width, new_height = image_size
    else:
        return None
    left = top = 0
    seen = (new_width, new_height)
    if images.do_center_crop:
        seen = (images.crop_size.width, images.crop_size.height)
        left, top = (new_width - seen[0]) // 2, (new_height - seen[1]) // 2
    if left < 0 or top < 0 or seen != (side * patch, side * patch) or getattr(images, "do_pad", False):
        return None
    moved = _move(box, new_width / width, new_height / height, -left, -top)
    return _cells(moved, side, side, patch).ravel()


def _tiled(box: Box, image_size: tuple[int, int], images: Any, config: Any, side: int, patch: int) -> Mask | None:
    """Tokens of LLaVA-1.6: the whole image squeezed into one square, then the rows of all tiles, unpadded.

    Follows `LlavaNextImageProcessorPil.get_image_patches` and `LlavaNextModel.pack_image_features`.
    """
    pixels = side * patch
    if not (images.do_resize and images.do_pad) or (images.size.shortest_edge or images.size.height) != pixels:
        return None
    width, height = image_size
    whole = _cells(_move(box, pixels / width, pixels / height, 0, 0), side, side, patch)

    best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    scale_x, scale_y = best_width / width, best_height / height
    if scale_x < scale_y:
        new_width, new_height = best_width, min(math.ceil(height * scale_x), best_height)
    else:
        new_width, new_height = min(math.ceil(width * scale_y), best_width), best_height
    left, top = (best_width - new_width) // 2, (best_height - new_height) // 2
    moved = _move(box, new_width / width, new_height / height, left, top)
    rows, columns = best_height // patch, best_width // patch
    tiles = _cells(moved, rows, columns, patch)
    # The model drops the rows or columns of patches that only padding can have filled.
    if width / height > columns / rows:
        padding = (rows - int(round(height * (columns / width), 7))) // 2
        tiles = tiles[padding : rows - padding]
    else:
        padding = (columns - int(round(width * (rows / height), 7))) // 2
        tiles = tiles[:, padding : columns - padding]
    ends = np.zeros((len(tiles), 1), dtype=np.bool_)  # one end-of-row token each, which shows no pixel
    return np.concatenate([whole.ravel(), np.hstack([tiles, ends]).ravel()])


def _move(box: Box, scale_x: float, scale_y: float, shift_x: float, shift_y: float) -> Box:
    x0, y0, x1, y1 = box
    return x0 * scale_x + shift_x, y0 * scale_y + shift_y, x1 * scale_x + shift_x, y1 * scale_y + shift_y


def _cells(box: Box, rows: int, columns: int, patch: int) -> Mask:
    """Patches of a grid inside a box, shape `(rows, columns)`."""
    x0, y0, x1, y1 = box
    x, y = np.arange(columns) * patch, np.arange(rows) * patch
    inside = np.outer((y0 <= y + patch / 2) & (y + patch / 2 < y1), (x0 <= x + patch / 2) & (x + patch / 2 < x1))
    return inside if inside.any() else np.outer((y0 < y + patch) & (y < y1), (x0 < x + patch) & (x < x1))
