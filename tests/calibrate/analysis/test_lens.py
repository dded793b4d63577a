"""The logit lens against all hidden states of real, tiny models."""

import torch
from analysis_runs import dataset

from calibrate.analysis.lens import logit_lens
from calibrate.models.batches import make_batch
from calibrate.scoring.attention_rows import attention_rows


@torch.inference_mode()
def test_the_lens_against_all_hidden_states(model):
    samples = list(dataset(5))
    batch = make_batch(model, samples)
    assert (~batch.valid).any(), "no sample was padded"
    with attention_rows(model) as rows_of, logit_lens(model) as read:
        found, rows = read(batch, rows_of)
    assert len(rows.rows) == model.geometry.layers
    output = model.model(**batch.inputs, use_cache=False, output_hidden_states=True)
    # transformers gives what the embedding and each layer put out, the last one already behind the final norm.
    states = [state[torch.arange(5), batch.last] for state in output.hidden_states[1:]]
    norm, head = model.language_model.norm, model.model.lm_head
    logits = [head(norm(state)) for state in states[:-1]] + [head(states[-1])]
    assert found.tokens.tolist() == output.logits[torch.arange(5), batch.last].argmax(-1).tolist()
    for layer, of_layer in enumerate(logits):
        for sample, token in enumerate(found.tokens.tolist()):
            order = of_layer[sample].argsort(descending=True, stable=True).tolist()
            assert abs(found.ranks[sample, layer].item() - (order.index(token) + 1)) <= 1  # a tie in float error
    assert (found.ranks[:, -1] == 1).all()
    assert (found.ranks > 1).any(), "every layer says the same, so that nothing was tested"


def test_the_lens_leaves_nothing_behind(llava):
    layers = llava.model.model.language_model.layers
    before = [len(layer._forward_hooks) for layer in layers]
    with logit_lens(llava):
        assert [len(layer._forward_hooks) for layer in layers] == [hooks + 1 for hooks in before]
    assert [len(layer._forward_hooks) for layer in layers] == before
