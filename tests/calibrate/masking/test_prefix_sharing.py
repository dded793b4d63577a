"""Variants that share what they have in common, against one full pass for each."""

from dataclasses import replace

import pytest
import torch
from profile_factories import profile_of

from calibrate.ablation.plans import configurations
from calibrate.ablation.treatments import ABLATION_TREATMENTS
from calibrate.datasets import open_dataset
from calibrate.masking.prefix_sharing import PrefixSharing, Variant
from calibrate.masking.treatments import treated
from calibrate.models.answer_logits import next_token_logits
from calibrate.models.batches import make_answered_batch, make_batch
from calibrate.models.decoder import decoder_layers


def variants_of(model, how):
    """Configurations of a table with two budgets, all heads alone of the second layer, doubles, and nothing at all."""
    geometry = model.geometry
    granularity = "kv_group" if geometry.group_size > 1 else "query_head"
    budgets = [str(geometry.group_size), str(2 * geometry.group_size)]
    chosen = configurations(profile_of(model), budgets, draws=1, seed=0, granularity=granularity, how=how)
    found = [Variant(one.treatments, one.plan.compensation.means) for one in chosen]
    full = [["full"] * geometry.query_heads for _ in range(geometry.layers)]
    return [*found[:4], *found, Variant(full)]


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("how", ABLATION_TREATMENTS)
def test_every_variant_is_its_own_full_pass(model, how, together):
    samples = list(open_dataset("synthetic", samples=3, seed=2))
    samples[1] = replace(samples[1], answer="red circle", options=("red circle", "red square"))
    (batch, _), (masked, asked) = (make_answered_batch(model, samples, padding) for padding in ("right", "left"))
    variants = variants_of(model, how)
    stock = next_token_logits(model, batch)
    found = dict(PrefixSharing(model, variants, block_size=4, together=together).logits(batch))
    assert sorted(found) == list(range(1 + len(variants)))
    assert (found[0] - stock).abs().max() < 1e-4
    changes = []
    for number, one in enumerate(variants, 1):
        options = {"compensation_means": one.means, "prompt_lengths": asked.prompt_lengths}
        with treated(model.model, one.treatments, block_size=4, **options):
            expected = next_token_logits(model, masked)
        assert (found[number] - expected).abs().max() < 1e-4
        changes.append(float((expected - stock).abs().max()))
    assert changes[-1] < 1e-4 < 1e-3 < min(changes[:-1])


def test_what_variants_share_is_computed_once(llava, request):
    batch = make_batch(llava, list(open_dataset("synthetic", samples=2, seed=2)))
    layers, heads = llava.geometry.layers, llava.geometry.query_heads
    full = ["full"] * heads
    removed = ["removed", *full[1:]]
    calls = []
    for index, layer in enumerate(decoder_layers(llava.model)):
        request.addfinalizer(layer.register_forward_pre_hook(lambda *_, index=index: calls.append(index)).remove)
    late = [full] * (layers - 1)
    variants = [
        Variant([*late, removed]),
        Variant([*late, removed]),
        Variant([full, removed, *late[1:-1], full]),
        Variant([full, removed, *late[1:-1], removed]),
    ]
    dict(PrefixSharing(llava, variants).logits(batch))
    untreated = list(range(layers))
    # One branch from layer 1 on, that parts in the last; and the doubled variant once, in the last.
    assert sorted(calls) == sorted([*untreated, *range(1, layers), layers - 1, layers - 1])


def test_a_part_of_a_batch_is_treated_by_itself(llava):
    """Two treatments of one layer side by side are each alone."""
    samples = list(open_dataset("synthetic", samples=2, seed=5))
    batch = make_batch(llava, samples)
    row = ["full"] * llava.geometry.query_heads
    kinds = ("removed", "text_only", "uniform")
    variants = [
        Variant([["full"] * len(row), [kind, *row[1:]], *[row] * (llava.geometry.layers - 2)]) for kind in kinds
    ]
    together = dict(PrefixSharing(llava, variants, together=3).logits(batch))
    alone = dict(PrefixSharing(llava, variants, together=1).logits(batch))
    for number in range(1, 4):
        torch.testing.assert_close(together[number], alone[number], rtol=1e-4, atol=1e-5)
    assert len({round(float(together[number].sum()), 3) for number in range(1, 4)}) == 3
