"""What every small LLaVA checkpoint of ours is made of: a tokenizer of whole words, and CLIP's image processor.

Owns how these are put together, for the tests' models and the benchmarks'. Knows no weights and no geometry.
"""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import PreTokenizer, Whitespace
from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
"""The first tokens of every vocabulary here, in this order."""


def word_tokenizer(
    words: Iterable[str], *, pre_tokenizer: PreTokenizer | None = None, **options: Any
) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark.

    Parameters
    ----------
    words
        The vocabulary, `SPECIAL` among it; a word's place is its token. Repeated words count once.
    pre_tokenizer
        How text is cut; at blanks and around punctuation if not given.
    options
        Of `PreTrainedTokenizerFast`.
    """
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizer or Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        **options,
    )


def image_sizes(pixels: int) -> dict[str, dict[str, int]]:
    """Arguments of an image processor for square images of `pixels` a side."""
    return {"size": {"shortest_edge": pixels}, "crop_size": {"height": pixels, "width": pixels}}


def llava_processor(
    tokenizer: PreTrainedTokenizerFast,
    pixels: int,
    patch_size: int,
    chat_template: str | None = None,
    **image_options: Any,
) -> LlavaProcessor:
    """LLaVA-1.5's processor for square images, `pixels` a side, each `(pixels // patch_size) ** 2` tokens."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(**image_sizes(pixels), **image_options),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )
