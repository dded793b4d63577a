"""Building the demo model: its configuration, tokenizer, processor, untrained weights, and the files it is saved as.

The files are laid out and named as the LLaVA-1.5 checkpoints on the Hub are, so that transformers and vLLM load them
without special cases. Knows the world's words, not its pictures, and nothing of training.
"""

import math
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from calibrate.datasets.synthetic.vocabulary import CELL, CELLS, COLOURS, GRID, PLURALS, REGIONS, SHAPES, SIZE, WORDS

UNKNOWN, BOS, EOS, PAD, IMAGE, USER, ASSISTANT = "<unk>", "<s>", "</s>", "<pad>", "<image>", "USER:", "ASSISTANT:"
TOKENS: Final = {word: i for i, word in enumerate((UNKNOWN, BOS, EOS, PAD, IMAGE, USER, ASSISTANT, *WORDS))}
"""Token id of every word."""

HIDDEN, LAYERS, HEADS, HEAD_SIZE, INTERMEDIATE = 256, 12, 8, 32, 384
VISION_HIDDEN, VISION_LAYERS, VISION_HEADS = 128, 3, 4

# Whatever adds special tokens on one path (the processor) and not on another (chat endpoints) would make the two
# prompts differ, so neither the template nor the tokenizer adds any: each prompt starts with `USER:`.
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] + ' ' }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_config() -> LlavaConfig:
    """Architecture: 12 decoder layers of 8 heads of size 32, and 144 image tokens of 8 x 8 pixels."""
    vision = CLIPVisionConfig(
        hidden_size=VISION_HIDDEN,
        intermediate_size=2 * VISION_HIDDEN,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=VISION_HEADS,
        image_size=SIZE,
        patch_size=CELL,
        projection_dim=64,
    )
    text = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_SIZE,
        max_position_embeddings=2048,
        bos_token_id=TOKENS[BOS],
        eos_token_id=TOKENS[EOS],
        pad_token_id=TOKENS[PAD],
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=TOKENS[IMAGE],
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=CELLS,
        tie_word_embeddings=False,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer: splits at white space and punctuation, so that plain English needs no spacing out."""
    core = Tokenizer(models.WordLevel(dict(TOKENS), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    # Added tokens are cut out before punctuation is split off, so `ASSISTANT:` stays one token.
    core.add_tokens([AddedToken(USER, normalized=False), AddedToken(ASSISTANT, normalized=False)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        unk_token=UNKNOWN,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        additional_special_tokens=[IMAGE],
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> LlavaProcessor:
    """Processor: pixels scaled to -1…1, each `<image>` repeated to 144 tokens, chat template in LLaVA-1.5's style."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=images,
        tokenizer=build_tokenizer(),
        patch_size=CELL,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(seed: int = 0) -> LlavaForConditionalGeneration:
    """Untrained model in float32, a pure function of the seed.

    Decoder matrices start at a standard deviation of 1/sqrt(fan-in), those that write to the residual stream divided
    by sqrt(2 x layers): at this width the usual 0.02 takes three times as many steps. A region's word starts as the
    sum of a column and a row vector, and a plural close to its singular.
    """
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(build_config())
    decoder = model.model.language_model
    for name, weight in decoder.layers.named_parameters():
        if weight.ndim == 2:
            std = weight.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std /= math.sqrt(2 * LAYERS)
            nn.init.normal_(weight, std=std)
    nn.init.normal_(model.lm_head.weight, std=HIDDEN**-0.5)
    with torch.no_grad():
        words = decoder.embed_tokens.weight
        nn.init.normal_(words, std=0.3)
        axes = 0.3 * torch.randn(2, GRID, HIDDEN)
        for cell, region in enumerate(REGIONS):
            words[TOKENS[region]] = axes[0, cell % GRID] + axes[1, cell // GRID]
        for singular, plural in PLURALS.items():
            words[TOKENS[plural]] = words[TOKENS[singular]] + 0.05 * torch.randn(HIDDEN)
    return model


def patch_targets(words: torch.Tensor) -> torch.Tensor:
    """What the projector's output is aligned with before questions are asked.

    Parameters
    ----------
    words
        Word embeddings, shape `(words, hidden)`.

    Returns
    -------
    Shape `(2 outlined or not, 17 kinds, 144 cells, hidden)`: the sum of the words for colour and shape (none for kind
    0, the empty cell), the region's name, and the word "region" where an outline is drawn.
    """
    colours = words[[TOKENS[c] for c in COLOURS]]
    shapes = words[[TOKENS[s] for s in SHAPES]]
    kinds = torch.cat([torch.zeros_like(words[:1]), (colours[:, None] + shapes).flatten(0, 1)])
    outline = torch.stack([torch.zeros_like(words[0]), words[TOKENS["region"]]])
    places = words[[TOKENS[r] for r in REGIONS]]
    return outline[:, None, None] + kinds[:, None] + places


def save_model(model: LlavaForConditionalGeneration, path: Path) -> None:
    """Write the model in bfloat16, with its processor, under the names of the Hub's LLaVA-1.5 checkpoints."""
    path.mkdir(parents=True, exist_ok=True)
    halved = LlavaForConditionalGeneration(model.config)
    halved.load_state_dict(model.state_dict())
    nn.Module.to(halved, torch.bfloat16)
    halved.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=TOKENS[BOS],
        eos_token_id=TOKENS[EOS],
        pad_token_id=TOKENS[PAD],
    )
    halved.save_pretrained(path)
    build_processor().save_pretrained(path)
    weights = path / "model.safetensors"
    save_file({hub_name(k): v for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})


def hub_name(name: str) -> str:
    """Name on the Hub of a tensor that transformers 5 saved: it drops `vision_model` from the vision tower's."""
    tower, inner = "vision_tower.", "vision_tower.vision_model."
    return inner + name.removeprefix(tower) if name.startswith(tower) and not name.startswith(inner) else name
