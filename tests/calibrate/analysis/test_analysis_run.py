"""The analysis' pass over real, tiny models: every kind of model, batches, resuming."""

import numpy as np
import pytest
import torch
from analysis_runs import Reversed, dataset, folder_of, run
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Phi3Config,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from calibrate.analysis.report import make_report
from calibrate.analysis.tallies import TABLES, Measured
from calibrate.datasets import open_dataset
from calibrate.errors import StateMismatch
from calibrate.models.loading import load_model


def same(a: Measured, b: Measured) -> None:
    """The same to float error, whatever the order of samples."""
    assert sorted(a.families) == sorted(b.families)
    for family in a.families:
        one, other = a.means(family), b.means(family)
        assert (one.samples, one.with_box) == (other.samples, other.with_box)
        for name in (*TABLES, "score"):
            x, y = getattr(one, name), getattr(other, name)
            assert (x is None) == (y is None)
            if x is not None:
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-5)
        assert sorted(map(tuple, a.ranks(family))) == sorted(map(tuple, b.ranks(family)))


def test_batches_and_order_change_nothing(model, tmp_path):
    one = run(model, dataset(), folder_of(tmp_path, "a"), batch_size=5)
    same(one, run(model, dataset(), folder_of(tmp_path, "b"), batch_size=1))
    same(one, run(model, Reversed(dataset()), folder_of(tmp_path, "c"), batch_size=7))


def _decoder(kind, **sizes):
    shared = {
        "hidden_size": 240,
        "intermediate_size": 136,
        "num_hidden_layers": 3,
        "vocab_size": 400,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    }
    return kind(**shared, **sizes)


FAMILIES = {
    "LLaVA-1.5": (LlavaConfig, LlavaForConditionalGeneration, LlamaConfig, 6, 6),
    "LLaVA-1.6 Vicuna": (LlavaNextConfig, LlavaNextForConditionalGeneration, LlamaConfig, 6, 6),
    "LLaVA-1.6 Mistral": (LlavaNextConfig, LlavaNextForConditionalGeneration, MistralConfig, 8, 2),
    "ViP-LLaVA Vicuna": (VipLlavaConfig, VipLlavaForConditionalGeneration, LlamaConfig, 6, 6),
    "ViP-LLaVA Llama-3": (VipLlavaConfig, VipLlavaForConditionalGeneration, LlamaConfig, 8, 2),
    "ViP-LLaVA Phi-3": (VipLlavaConfig, VipLlavaForConditionalGeneration, Phi3Config, 6, 6),
}
"""The paper's families: configuration, class, decoder, query and KV heads; the last two are not in transformers' format
on the Hub, but would be these classes."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_paper_is_analysed(family, llava, llava_next, tmp_path):
    """Scaled down, with random weights; pictures of LLaVA-1.6 have different numbers of tokens."""
    config_kind, model_kind, decoder, heads, kv_heads = FAMILIES[family]
    pattern = llava_next if config_kind is LlavaNextConfig else llava
    text = _decoder(decoder, num_attention_heads=heads, num_key_value_heads=kv_heads)
    more = {"image_grid_pinpoints": pattern.model.config.image_grid_pinpoints} if pattern is llava_next else {}
    if config_kind is VipLlavaConfig:
        more = {"vision_feature_layers": [-2, 1]}
    config = config_kind(
        vision_config=pattern.model.config.vision_config,
        text_config=text,
        image_token_index=pattern.model.config.image_token_id,
        **more,
    )
    torch.manual_seed(0)
    model = model_kind(config)
    for weight in model.parameters():
        weight.data *= 3 if weight.ndim > 1 else 1
    model.save_pretrained(tmp_path / "model")
    pattern.processor.save_pretrained(tmp_path / "model")
    loaded = load_model(str(tmp_path / "model"), "float32", "cpu")
    samples = 8
    given = open_dataset("synthetic", samples=samples, seed=3, families=["general", "general_box"])
    if pattern is llava_next:
        given = Wide(given)
    found = run(loaded, given, tmp_path, batch_size=4)
    means = found.means()
    assert means.samples == samples
    assert means.image_weight.shape == (3, heads)
    assert 0 < means.image_weight.min() <= means.image_weight.max() <= 1 + 1e-6
    assert means.box_weight is not None
    assert np.ptp(means.image_weight) > 1e-4
    report = make_report(loaded, given, found)
    assert len(report.findings) == 6
    assert report.document()


class Wide(Reversed):
    """Every other picture twice as wide as high, with its box where it was."""

    def read(self, index):
        from dataclasses import replace

        sample = super().read(index)
        if index % 2:
            return sample
        picture = sample.image.resize((2 * sample.image.width, sample.image.height))
        box = None if sample.box is None else (2 * sample.box[0], sample.box[1], 2 * sample.box[2], sample.box[3])
        return replace(sample, image=picture, box=box)


class Failing(Reversed):
    """A dataset that breaks off once, at one sample."""

    left = 1

    def read(self, index):
        if index == 11 and self.left:
            self.left = 0
            raise KeyboardInterrupt
        return super().read(index)


def test_an_interrupted_run_goes_on_to_the_same_numbers(llava, tmp_path):
    whole = run(llava, Reversed(dataset()), folder_of(tmp_path, "whole"), batch_size=4)
    folder = tmp_path
    given = Failing(dataset())
    with pytest.raises(KeyboardInterrupt):
        run(llava, given, folder, batch_size=4)
    state = folder / "analysis.json.partial"
    assert state.exists()
    again = run(llava, given, folder, batch_size=4)
    same(whole, again)
    assert again.families == whole.families
    np.testing.assert_array_equal(again.tally.arrays["ranks"], whole.tally.arrays["ranks"])
    # A finished state is taken as it is, for what comes after may be stopped too; one of other samples is refused.
    same(whole, run(llava, given, folder, batch_size=4))
    with pytest.raises(StateMismatch, match="samples was 18, is now 4"):
        run(llava, dataset(4), folder)
