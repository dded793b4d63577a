"""The fast path against `output_attentions=True`, which builds the whole matrices."""

import pytest
import torch
from transformers import AttentionInterface, MistralConfig, MistralModel
from transformers.masking_utils import AttentionMaskInterface

from calibrate.datasets import open_dataset
from calibrate.models.batches import make_batch
from calibrate.models.loading import load_model
from calibrate.scoring.attention_rows import attention_rows, last_row

TOLERANCE = 1e-5


def registered():
    return set(AttentionInterface._global_mapping), set(AttentionMaskInterface._global_mapping)


@pytest.fixture(scope="module")
def samples():
    # Of four families, so that prompts differ in length.
    return list(open_dataset("synthetic", samples=8, seed=0))[:8:2]


@pytest.fixture(scope="module")
def slow(model):
    return load_model(model.ref.name, "float32", "cpu", attention="eager")


@torch.inference_mode()
def whole_matrices(slow, batch):
    """Attention of each layer, `(batch, heads, n, n)`, and what `o_proj` gets, `(batch, n, heads, head size)`."""
    inputs, hooks, size = [], [], slow.geometry.head_size
    for module in slow.attentions:
        hooks.append(module.o_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
    output = slow.model(**batch.inputs, output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    return output.attentions, [x.unflatten(-1, (-1, size)) for x in inputs]


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_and_output_sums(model, slow, samples, padding):
    batch = make_batch(model, samples, padding)
    assert (~batch.valid).any(), "no sample was padded"
    with attention_rows(model) as read:
        found = read(batch)
    matrices, outputs = whole_matrices(slow, batch)
    geometry = model.geometry
    assert len(found.rows) == geometry.layers
    assert found.positions == int(batch.valid.sum())
    assert found.output_sum.shape == (geometry.layers, geometry.query_heads, geometry.head_size)
    assert found.output_sum.dtype == torch.float64
    every = torch.arange(len(samples))
    for layer, (matrix, output) in enumerate(zip(matrices, outputs, strict=True)):
        row = found.rows[layer]
        assert row.dtype == torch.float32
        torch.testing.assert_close(row, matrix[every, :, batch.last], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(row.sum(-1), torch.ones(row.shape[:2]), rtol=0, atol=TOLERANCE)
        assert not row[(~batch.valid)[:, None].expand_as(row)].any()
        expected = output.double().masked_fill(~batch.valid[:, :, None, None], 0).sum((0, 1))
        torch.testing.assert_close(found.output_sum[layer], expected, rtol=1e-5, atol=1e-3)
        assert row.std(1).max() > 1e-3, "heads don't differ, so a swapped axis would go unseen"


def test_bfloat16_rows_are_computed_in_float32(llava_path, samples):
    exact, coarse = (load_model(str(llava_path), dtype, "cpu") for dtype in ("float32", "bfloat16"))
    rows = []
    for loaded in (exact, coarse):
        batch = make_batch(loaded, samples)
        with attention_rows(loaded) as read:
            rows.append(read(batch).rows)
    for a, b in zip(*rows, strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(b.sum(-1), torch.ones(b.shape[:2]), rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(b, a, rtol=0, atol=0.05)


def test_the_output_is_untouched(model, samples):
    batch = make_batch(model, samples)
    with torch.inference_mode():
        before = model.model(**batch.inputs, use_cache=False).logits
        with attention_rows(model) as read:
            read(batch)
            during = model.model(**batch.inputs, use_cache=False).logits
        after = model.model(**batch.inputs, use_cache=False).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_behind(llava, samples, fails):
    before, names = llava.language_model.config._attn_implementation, registered()
    batch = make_batch(llava, samples[:1])
    if fails:
        batch.inputs["input_ids"] = batch.inputs["input_ids"][:, :5]  # the image tokens no longer match the picture
    with attention_rows(llava) as read:
        assert registered() != names
        if fails:
            with pytest.raises(ValueError, match="match"):
                read(batch)
        else:
            read(batch)
    assert registered() == names
    assert llava.language_model.config._attn_implementation == before == "sdpa"


def test_the_vision_tower_is_not_tapped(llava, samples):
    with attention_rows(llava) as read:
        assert llava.model.model.vision_tower.config._attn_implementation == "sdpa"
        assert llava.language_model.config._attn_implementation != "sdpa"
        found = read(make_batch(llava, samples))
    # The tower's attention spans its 82 patches; the rows span the prompt.
    assert {row.shape[-1] for row in found.rows} == {make_batch(llava, samples).valid.shape[1]}


def test_two_taps_at_a_time(llava, llava_next, samples):
    with attention_rows(llava) as first, attention_rows(llava_next) as second:
        a, b = first(make_batch(llava, samples)), second(make_batch(llava_next, samples))
    assert (len(a.rows), len(b.rows)) == (llava.geometry.layers, llava_next.geometry.layers)


def test_no_square_matrix_is_built(llava, llava_path, samples):
    slow = load_model(str(llava_path), "float32", "cpu", attention="eager")
    batch = make_batch(llava, samples)
    n = batch.valid.shape[1]
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[-2:] == (n, n):
                seen.append(function)
            return result

    with attention_rows(llava) as read, Watch():
        read(batch)
    assert not seen
    with torch.inference_mode(), Watch():
        slow.model(**batch.inputs, use_cache=False)
    assert seen, "the slow path builds them"


def test_sliding_windows_hide_what_is_before_them():
    print("seed 0")
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=50,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=7,
    )
    model = MistralModel._from_config(config, attn_implementation="eager").eval()
    tokens = torch.randint(0, 50, (3, 20))
    kept = {}

    def keep(module, query, key, value, attention_mask, scaling=None, **options):
        valid, last = torch.ones(3, 20, dtype=torch.bool), torch.full((3,), 19)
        kept[module.layer_idx] = last_row(query, key, last, valid, attention_mask, scaling)
        return AttentionInterface._global_mapping["sdpa"](module, query, key, value, attention_mask, scaling=scaling)

    with torch.inference_mode():
        matrices = model(tokens, output_attentions=True, use_cache=False).attentions
        AttentionInterface.register("keep_rows", keep)
        try:
            for mask in ("sdpa", "eager"):  # boolean, and added to the logits
                AttentionMaskInterface.register("keep_rows", AttentionMaskInterface._global_mapping[mask])
                model.set_attn_implementation("keep_rows")
                model(tokens, use_cache=False)
                for layer, matrix in enumerate(matrices):
                    assert (kept[layer][:, :, :13] == 0).all()
                    torch.testing.assert_close(kept[layer], matrix[:, :, 19], rtol=0, atol=TOLERANCE)
        finally:
            AttentionInterface._global_mapping.pop("keep_rows")
            AttentionMaskInterface._global_mapping.pop("keep_rows", None)
