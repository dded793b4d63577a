"""Prompts of tests, with the pictures and videos that are drawn for them, as requests to vLLM.

Imported on both sides of an engine host and by the oracle. Knows no engine.
"""

from dataclasses import dataclass
from typing import Any

IMAGE_TOKEN = 4
"""Of the tiny models. Not to be said: transformers would take it for the place of another picture."""


@dataclass(frozen=True)
class EnginePrompt:
    """A prompt and the seeds of its images and videos; `same image` is `same seed`. Videos stand before images."""

    text: str
    images: tuple[int, ...] = ()
    image_size: tuple[int, int] = (72, 72)
    videos: tuple[int, ...] = ()
    frames: int = 6


def request(prompt: EnginePrompt) -> dict[str, Any]:
    pictures = [image(seed, prompt.image_size) for seed in prompt.images]
    videos = [video(seed, prompt.image_size, prompt.frames) for seed in prompt.videos]
    media = {name: items for name, items in (("image", pictures), ("video", videos)) if items}
    return {"prompt": prompt.text} | ({"multi_modal_data": media} if media else {})


def image(seed: int, size: tuple[int, int]) -> Any:
    """A picture of coarse random colours, `size` is width and height; resized smoothly by any processor."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def video(seed: int, size: tuple[int, int], frames: int) -> tuple[Any, dict[str, Any]]:
    """Such pictures as frames, `(frames, height, width, 3)`, of 8 a second; and what vLLM has to know of them.

    Few: how many positions a longer one takes, vLLM and transformers disagree for Qwen2.5-VL.
    """
    import numpy as np

    pixels = np.stack([np.asarray(image(100 * seed + number, size)) for number in range(frames)])
    times = {"fps": 8.0, "duration": frames / 8, "total_num_frames": frames, "frames_indices": list(range(frames))}
    return pixels, {**times, "video_backend": "opencv", "do_sample_frames": False}
