"""How many tokens one picture takes, read off the model's configuration, which its weights fit.

Owns the counts that LLaVA's processors need, and the token that stands for a picture. Those saved by old releases lack
some of these fields or have others' defaults; what they say of them is never asked. Of other families the processor
itself is asked, for a picture of the usual size. Does not know prompts.
"""

from typing import Any, Final

from PIL import Image

from calibrate.errors import UnsupportedModel
from profiles.errors import ModelBroken

_ADDITIONAL: Final = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Tokens that a vision tower has besides those of its patches: CLIP's class token."""

_SQUARES: Final = ("llava", "vipllava")


USUAL_PICTURE: Final = (640, 480)
"""Width and height, in pixels, of the picture whose tokens are a model's usual number: COCO's most frequent size."""


def usual_tokens(config: Any, processor: Any = None) -> int:
    """Tokens of one picture: what a model makes of all, or of a usual one.

    A LLaVA-1.6's are a square picture's, the most there are: all tiles, the whole picture, and one end-of-row token for
    each row. Where the number depends on the picture's shape in another way, those of a picture of `USUAL_PICTURE`.

    Parameters
    ----------
    processor
        Needed where the configuration alone does not say it.

    Raises
    ------
    UnsupportedModel
    """
    if config.model_type == "llava_next":
        rows = max(min(pair) for pair in config.image_grid_pinpoints) // config.vision_config.patch_size
        return tower_tokens(config) + rows * (rows + 1)
    if processor is None or fills_squares(config):
        return tower_tokens(config)
    made = processor(images=[Image.new("RGB", USUAL_PICTURE)], text=[str(processor.image_token)], return_tensors="pt")
    return int((made["input_ids"] == config.image_token_id).sum())


def fills_squares(config: Any) -> bool:
    """Whether every picture has as many tokens as the model's CLIP or SigLIP tower: LLaVA-1.5 and ViP-LLaVA."""
    return config.model_type in _SQUARES and config.vision_config.model_type in _ADDITIONAL


def tower_tokens(config: Any) -> int:
    """Tokens of one square of `image_size` pixels that the decoder gets, of a transformers LLaVA configuration.

    Raises
    ------
    UnsupportedModel
        Its vision tower is neither CLIP's nor SigLIP's.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    return int(side**2) + additional_tokens(config) - (_strategy(config) == "default")


def additional_tokens(config: Any) -> int:
    """Tokens of the vision tower besides those of its patches, before the model's strategy drops the first or none.

    Raises
    ------
    UnsupportedModel
    """
    kind = config.vision_config.model_type
    if kind not in _ADDITIONAL:
        raise UnsupportedModel(
            f"the model's vision tower is a {kind}",
            expected=f"one of {', '.join(_ADDITIONAL)}",
            fix="choose a LLaVA model with one of these",
        )
    return _ADDITIONAL[kind]


def complete(processor: Any, config: Any) -> None:
    """Make a processor put as many image tokens into a prompt as the model has, and name them as the model does.

    Processors of other families than LLaVA's hold their counts, or have them of their image processors.

    Raises
    ------
    UnsupportedModel
    ModelBroken
        The tokenizer has no word for the model's image token.
    """
    if hasattr(processor, "num_additional_image_tokens"):
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = _strategy(config)
        processor.num_additional_image_tokens = additional_tokens(config)
    processor.image_token_id = int(config.image_token_id)
    processor.image_token = image_token(processor.tokenizer, config)


def image_token(tokenizer: Any, config: Any) -> str:
    """What a tokenizer reads as the model's image token.

    Raises
    ------
    ModelBroken
        It reads nothing as that.
    """
    number = int(config.image_token_id)
    word = tokenizer.convert_ids_to_tokens(number) if number < len(tokenizer) else None
    if word is None or tokenizer(word, add_special_tokens=False)["input_ids"] != [number]:
        raise ModelBroken(
            f"the tokenizer has no word for the model's image token, {number}",
            expected="a tokenizer with the image token of config.json",
            fix="fetch the tokenizer's files again, or correct image_token_index in config.json",
        )
    return str(word)


def placeholder_tokens(processor: Any) -> dict[int, str]:
    """Tokens that stand for pictures and videos in the prompts of a completed processor, and how they are written."""
    found = {int(processor.image_token_id): str(processor.image_token)}
    if (video := getattr(processor, "video_token", None)) is not None:
        ids = processor.tokenizer(video, add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != processor.tokenizer.unk_token_id:  # else it is words to this tokenizer
            found[int(ids[0])] = str(video)
    return found


def _strategy(config: Any) -> str:
    """`default` drops the first token of the vision tower, `full` drops none; ViP-LLaVA always drops it."""
    return str(getattr(config, "vision_feature_select_strategy", "default"))
