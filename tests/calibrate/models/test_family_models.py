"""Every family through transformers: prompts, attention rows, treatments, effects and boxes; and who is refused.

Each is compared with eager attention or with the model's own full pass, which build the whole matrices.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_families import FAMILIES
from transformers import (
    AutoModelForImageTextToText,
    DeepseekV3Config,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    LlavaConfig,
    Phi3Config,
    Qwen3NextConfig,
)

from calibrate.datasets.sample import Sample
from calibrate.errors import PlaceholderInText, UnsupportedModel
from calibrate.masking.prefix_sharing import PrefixSharing, Variant
from calibrate.masking.treatments import treated
from calibrate.models.answer_logits import log_odds, next_token_logits
from calibrate.models.batches import make_answered_batch, make_batch
from calibrate.models.criterion import check_heads
from calibrate.models.decoder import attention_of, decoder_layers
from calibrate.models.loading import load_model
from calibrate.models.prompts import make_prompt
from calibrate.scoring.attention_rows import attention_rows
from calibrate.scoring.effects import head_effects

TOLERANCE = 1e-5
SIZES = ((96, 60), (72, 72), (60, 90))
GRIDS = ("qwen2.5-vl", "qwen3-vl", "qwen3-vl-moe", "mistral3", "pixtral", "glm-4.1v")
"""Families that make one grid of tokens of a whole picture."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return request.param, FAMILIES[request.param].make(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def loaded(family):
    return load_model(str(family[1]), "float32", "cpu")


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    questions = ("how many red circles are there ?", "is there a blue square in the picture ?", "how many ?")

    def sample(index):
        pixels = rng.integers(0, 255, (*SIZES[index][::-1], 3), dtype=np.uint8)
        return Sample(
            str(index), Image.fromarray(pixels), questions[index], "1", "general", ("1", "2"), (20, 24, 50, 55)
        )

    return [sample(index) for index in range(len(SIZES))]


def test_tokens_are_those_of_transformers_own_chat_call(loaded, samples):
    for sample in samples:
        content = [{"type": "image", "image": sample.image}, {"type": "text", "text": sample.question}]
        theirs = loaded.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"add_special_tokens": False},
        )
        ours = make_prompt(loaded, sample)
        assert torch.equal(ours.tokens, theirs["input_ids"][0])
        for name, one in ours.kinds.items():
            assert torch.equal(one, theirs[name][0]), name


def test_questions_that_stand_for_a_picture_or_a_video_are_refused(family, loaded, samples):
    """As the server refuses them; marks are words, and an image token at the beginning is the picture's."""
    known = FAMILIES[family[0]]
    for word in known.stands_for:
        with pytest.raises(PlaceholderInText) as error:
            make_prompt(loaded, replace(samples[0], id="record 7", question=f"how many {word} red circles ?"))
        assert "sample record 7: the question has " in str(error.value)
        assert "\n" not in str(error.value)
    question = f"{loaded.image_token} how many {' '.join(known.harmless)} red circles ?"
    assert make_prompt(loaded, replace(samples[0], question=question)).image.any()


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_are_the_weights_of_eager_attention(family, loaded, samples, padding):
    batch = make_batch(loaded, samples, padding)
    assert (~batch.valid).any(), "no sample was padded"
    slow = load_model(str(family[1]), "float32", "cpu", attention="eager")
    with attention_rows(loaded) as read:
        found = read(batch)
    with torch.inference_mode():
        matrices = slow.model(**batch.inputs, output_attentions=True, use_cache=False).attentions
    assert len(found.rows) == len(matrices) == loaded.geometry.layers
    every = torch.arange(len(samples))
    for row, matrix in zip(found.rows, matrices, strict=True):
        torch.testing.assert_close(row, matrix[every, :, batch.last], rtol=0, atol=TOLERANCE)
        assert row.std(1).max() > 1e-3, "heads don't differ, so a swapped axis would go unseen"


def test_a_batch_says_what_its_samples_say(loaded, samples):
    alone = torch.cat([next_token_logits(loaded, make_batch(loaded, [sample])) for sample in samples])
    for padding in ("left", "right"):
        together = next_token_logits(loaded, make_batch(loaded, samples, padding))
        torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


def test_shared_layers_say_what_the_whole_treated_pass_says(loaded, samples):
    """What a model adds between its layers (DeepStack) is not lost where a pass goes on from a layer."""
    geometry, rng = loaded.geometry, np.random.default_rng(1)
    shape = (geometry.layers, geometry.query_heads)
    variants = [Variant(rng.choice(["full", "text_only", "removed"], size=shape).tolist()) for _ in range(2)]
    late = [["full"] * shape[1] for _ in range(shape[0])]
    late[-1][0] = "removed"
    variants.append(Variant(late))
    batch, _ = make_answered_batch(loaded, samples)
    lengths = batch.expected.prompt_lengths
    plain = next_token_logits(loaded, batch)
    for together in (1, 3):
        for row, logits in PrefixSharing(loaded, variants, block_size=4, together=together).logits(batch):
            if row:
                with treated(loaded.model, variants[row - 1].treatments, block_size=4, prompt_lengths=lengths):
                    expected = next_token_logits(loaded, batch)
                torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
                assert (logits - plain).abs().max() > 1e-3, "nothing was treated"


def test_effects_are_the_slope_of_the_log_odds(loaded, samples):
    """Removal to first order: a head's output is scaled by 1 - ε, and the log-odds of the right answer follow."""
    batch, expected = make_answered_batch(loaded, samples)
    with head_effects(loaded, 4) as measure:
        found = measure(batch, expected.tokens)
    removed = found.by_treatment["removed"]
    assert (removed > 0).all()
    assert (found.by_treatment["text_only"].amax((0, 1)) > 0).all()
    before = log_odds(next_token_logits(loaded, batch), expected.tokens)
    size, step = loaded.geometry.head_size, 1e-2
    for layer, head in ((0, 1), (loaded.geometry.layers - 1, 0)):
        attention = attention_of(decoder_layers(loaded.model)[layer])

        def shrink(module, args, at=slice(head * size, (head + 1) * size)):
            output = args[0].clone()
            output[..., at] *= 1 - step
            return (output,)

        hook = attention.o_proj.register_forward_pre_hook(shrink)
        change = log_odds(next_token_logits(loaded, batch), expected.tokens) - before
        hook.remove()
        torch.testing.assert_close(removed[layer, :, head].float(), change.abs() / step, rtol=0.1, atol=2e-2)


def test_boxes_are_found_where_a_picture_is_one_grid(family, loaded):
    """A white box on black: the tokens in the box are those whose pixels are white. Elsewhere there is no answer."""
    pixels = np.zeros((72, 72, 3), np.uint8)
    pixels[12:36, 24:60] = 255
    prompt = make_prompt(
        loaded, Sample("0", Image.fromarray(pixels), "how many ?", "1", "x", ("1", "2"), (24, 12, 60, 36))
    )
    if family[0] not in GRIDS:
        assert prompt.box is None
        return
    made = prompt.pixels["pixel_values"]
    count = int(prompt.image.sum())
    if made.ndim == 2:  # patches of a token one after another
        bright = made.view(count, -1).mean(1)
    else:
        side = made.shape[-1] // round(count**0.5)
        bright = torch.nn.functional.avg_pool2d(made.mean(1, keepdim=True), side).flatten()
    assert torch.equal(prompt.box[prompt.image], bright > bright.mean())


def built(text):
    vision = {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(LlavaConfig(vision_config=vision, text_config=text))


SMALL = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
REFUSED = {
    "MLA": (DeepseekV3Config(**SMALL, num_key_value_heads=4, first_k_dense_replace=2), "one latent for all heads"),
    "linear attention": (Qwen3NextConfig(**SMALL, num_key_value_heads=2), "no attention modules with a KV cache"),
    "one KV head": (LlamaConfig(**SMALL, num_key_value_heads=1), "one KV head for 4 query heads"),
    "sinks": (GptOssConfig(**SMALL, num_key_value_heads=2, head_dim=16), "attention sinks"),
    "soft cap": (Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=16), "final_logit_softcapping"),
    "soft cap of attention": (
        Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=16, final_logit_softcapping=None),
        "caps the logits of attention",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_into_is_refused_by_its_criterion(name):
    text, words = REFUSED[name]
    with pytest.raises(UnsupportedModel) as error:
        check_heads("it", built(text))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_decoder_that_no_list_names_passes():
    check_heads("it", built(Phi3Config(**SMALL, num_key_value_heads=2, pad_token_id=0)))


def test_a_model_that_transformers_does_not_have_is_refused(tmp_path, family):
    config = json.loads((family[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "internvl_chat"}))
    for file in family[1].iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(UnsupportedModel, match=r"\(internvl_chat\), which transformers does not have"):
        load_model(str(tmp_path), "float32", "cpu")
