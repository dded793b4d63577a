"""The oracle against a decoder written out by hand, head by head and query by query, in float64 numpy."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import make_tiny_llava, make_tiny_llava_next
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from calibrate.masking.ablations import ABLATIONS
from calibrate.masking.image_blocks import image_blocks
from calibrate.masking.treatments import plan_treated, treated
from calibrate.models.decoder import decoder_layers
from profiles.geometry import ModelGeometry, ModelRef
from profiles.image_spans import RULE
from profiles.pruning_plan import Compensation, PruningPlan
from profiles.treatments import TREATMENTS

GEOMETRIES = {
    "mha": (make_tiny_llava, {"query_heads": 5}),
    "gqa": (make_tiny_llava, {"query_heads": 8, "kv_heads": 2}),
    "next": (make_tiny_llava_next, {"query_heads": 8, "kv_heads": 4}),
}


@pytest.fixture(scope="module", params=GEOMETRIES)
def llava(request, tmp_path_factory):
    make, geometry = GEOMETRIES[request.param]
    path = make(tmp_path_factory.mktemp(request.param), layers=3, **geometry)
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    return model.eval(), AutoProcessor.from_pretrained(path)


def inputs_of(processor, questions, seed=0, side="left"):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)) for _ in questions]
    texts = [f"<s>USER: <image>\n{question} ASSISTANT:" for question in questions]
    return processor(images=images, text=texts, return_tensors="pt", padding=True, padding_side=side)


def logits_of(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits


def rms(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotated(x, theta):
    half = x.shape[1] // 2
    angle = np.arange(len(x))[:, None] / theta ** (np.arange(half) * 2 / x.shape[1])
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=1)


def slow_log_probabilities(model, embeddings, image, treatments, means, block_size, prompt):
    """Log-probabilities of every position, `(n, vocabulary)`, of one sequence; `prompt` tokens are its prompt."""
    config = model.config.text_config
    size, group = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    n, block_size, weight = len(embeddings), block_size or 1, lambda module: module.weight.detach().double().numpy()
    number = np.full(n, -1)  # of the image block, within its image
    for start in range(0, n - block_size + 1, block_size):
        if image[start : start + block_size].all():
            number[start : start + block_size] = 0 if number[start - 1] < 0 else number[start - 1] + 1
    means = iter([] if means is None else means)
    x, theta = embeddings, config.rope_parameters["rope_theta"]
    for layer, row in zip(decoder_layers(model), treatments, strict=True):
        attention = layer.self_attn
        h = rms(x, weight(layer.input_layernorm), config.rms_norm_eps)
        heads = np.zeros((n, len(row), size))
        for head, treatment in enumerate(row):
            own, shared = slice(head * size, (head + 1) * size), slice(head // group * size, (head // group + 1) * size)
            q, k = h @ weight(attention.q_proj)[own].T, h @ weight(attention.k_proj)[shared].T
            v = h @ weight(attention.v_proj)[shared].T
            logits = rotated(q, theta) @ rotated(k, theta).T * size**-0.5
            if treatment == "removed":
                heads[:, head] = next(means, np.zeros(size))
            elif treatment == "uniform":
                heads[:, head] = v.mean(0)
            else:
                for i in range(n):
                    stride = getattr(TREATMENTS[treatment], "seen_in_" + ("reply" if i >= prompt else "prompt")).stride
                    gone = (number >= 0) & ((number % stride != 0) if stride else True)
                    if gone[i]:
                        continue
                    p = np.where(gone | (np.arange(n) > i), 0, np.exp(logits[i]))
                    heads[i, head] = p / p.sum() @ v
        x = x + heads.reshape(n, -1) @ weight(attention.o_proj).T
        h = rms(x, weight(layer.post_attention_layernorm), config.rms_norm_eps)
        gate = h @ weight(layer.mlp.gate_proj).T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ weight(layer.mlp.up_proj).T)) @ weight(layer.mlp.down_proj).T
    logits = rms(x, weight(model.model.language_model.norm), config.rms_norm_eps) @ weight(model.lm_head).T
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def embeddings_of(model, inputs):
    """Embeddings of one sequence as the decoder gets them, `(n, hidden)`."""
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    logits_of(model, inputs)
    hook.remove()
    return seen[0][0].double().numpy()


def random_treatments(rng, layers, heads):
    weights = [0.9 / len(TREATMENTS)] * len(TREATMENTS) + [0.1 / len(ABLATIONS)] * len(ABLATIONS)
    rows = rng.choice([*TREATMENTS, *ABLATIONS], size=(layers, heads), p=weights)
    rows[0, 0], rows[1, :] = "text_only", "removed"  # one layer loses every head
    return rows.tolist()


@pytest.mark.parametrize(("block_size", "mean"), [(None, False), (16, True), (32, False), (32, True)])
def test_equals_the_decoder_written_by_hand(llava, block_size, mean, random_seed):
    model, processor = llava
    rng = np.random.default_rng(random_seed)
    config = model.config.text_config
    treatments = random_treatments(rng, config.num_hidden_layers, config.num_attention_heads)
    removed = sum(row.count("removed") for row in treatments)
    means = rng.normal(size=(removed, config.head_dim)).astype(np.float32) if mean else None
    inputs = inputs_of(processor, ["How many red circles are there?"], random_seed)
    image = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
    prompt = len(image) - 4  # the last four tokens are the reply's
    with treated(model, treatments, compensation_means=means, block_size=block_size, prompt_lengths=[prompt]):
        fast = logits_of(model, inputs).log_softmax(-1)[0].double().numpy()
    slow = slow_log_probabilities(model, embeddings_of(model, inputs), image, treatments, means, block_size, prompt)
    assert np.abs(fast - slow).max() < 2e-5
    assert np.abs(logits_of(model, inputs).log_softmax(-1)[0].numpy() - slow).max() > 0.1, "nothing was treated"


@pytest.mark.parametrize("block_size", [None, 16])
def test_row_breaks_are_masked_with_their_image(llava, block_size):
    """Two images with a word between them, whose rows end with a token of text, and one with nine."""
    model, processor = llava
    config = model.config.text_config
    rng = np.random.default_rng(11)
    images = [Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)) for _ in range(2)]
    inputs = processor(images=images, text=["<s>USER: <image> red <image> how many ? ASSISTANT:"], return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    word, count = processor.tokenizer.convert_tokens_to_ids("circles"), ids.count(model.config.image_token_id) // 2
    broken, spans = [], []
    for place, token in enumerate(ids):
        is_image = token == model.config.image_token_id
        broken.append(token)
        spans.append(is_image)
        seen = sum(one == model.config.image_token_id for one in ids[: place + 1])
        if is_image and seen % 10 == 0 and seen % count:
            words = 9 if seen == count + count // 20 * 10 else 1
            broken += [word] * words
            spans += [words == 1] * words
    assert 10 < sum(spans) - 2 * count < len(broken) - 9
    inputs["input_ids"] = torch.tensor([broken])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    treatments = random_treatments(rng, config.num_hidden_layers, config.num_attention_heads)
    prompt = len(broken) - 4
    media = [[("image", count), ("image", count)]]
    with treated(model, treatments, block_size=block_size, prompt_lengths=[prompt], media=media, rule=RULE):
        fast = logits_of(model, inputs).log_softmax(-1)[0].double().numpy()
    embeddings = embeddings_of(model, inputs)
    slow = slow_log_probabilities(model, embeddings, np.array(spans), treatments, None, block_size, prompt)
    assert np.abs(fast - slow).max() < 2e-5
    images_only = np.array(broken) == model.config.image_token_id
    other = slow_log_probabilities(model, embeddings, images_only, treatments, None, block_size, prompt)
    assert np.abs(other - slow).max() > 1e-3, "breaks make no difference"


@pytest.mark.parametrize(("block_size", "side"), [(None, "left"), (32, "left"), (32, "right")])
def test_padding_and_batching_change_nothing(llava, block_size, side):
    model, processor = llava
    config = model.config.text_config
    treatments = random_treatments(np.random.default_rng(3), config.num_hidden_layers, config.num_attention_heads)
    questions = ["How many red circles are there?", "yes?", "What colour is in region a1? A. red B. blue"]
    batch = inputs_of(processor, questions, side=side)
    assert not batch["attention_mask"].all()
    with treated(model, treatments, block_size=block_size):
        together = logits_of(model, batch)
        for i, mask in enumerate(batch["attention_mask"].bool()):
            alone = {key: value[i : i + 1] for key, value in batch.items()}
            alone["input_ids"], alone["attention_mask"] = alone["input_ids"][:, mask], mask[mask][None]
            assert (together[i][mask] - logits_of(model, alone)[0]).abs().max() < 2e-5


def test_an_empty_plan_is_bit_identical_and_nothing_stays_behind(llava):
    model, processor = llava
    config = model.config.text_config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    inputs, functions = inputs_of(processor, ["How many red circles are there?"]), set(ALL_ATTENTION_FUNCTIONS)
    stock = logits_of(model, inputs)
    with treated(model, [["full"] * heads] * layers):
        assert torch.equal(logits_of(model, inputs), stock)
    everything = [["text_only", "removed", "uniform", *["full"] * (heads - 3)]] * layers
    context = treated(model, everything)
    context.__enter__()
    assert not torch.equal(logits_of(model, inputs), stock)
    assert not context.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert torch.equal(logits_of(model, inputs), stock)
    assert set(ALL_ATTENTION_FUNCTIONS) == functions


def test_eager_attention_gives_the_same(llava):
    model, processor = llava
    config = model.config.text_config
    treatments = random_treatments(np.random.default_rng(5), config.num_hidden_layers, config.num_attention_heads)
    inputs = inputs_of(processor, ["How many red circles are there?", "yes?"])
    valid = inputs["attention_mask"].bool()
    with treated(model, treatments, block_size=16):
        sdpa = logits_of(model, inputs)
    model.set_attn_implementation("eager")
    try:
        with treated(model, treatments, block_size=16):
            assert (logits_of(model, inputs)[valid] - sdpa[valid]).abs().max() < 2e-5
    finally:
        model.set_attn_implementation("sdpa")


def test_a_plan_brings_its_compensation(llava):
    model, processor = llava
    config = model.config.text_config
    geometry = ModelGeometry(
        layers=config.num_hidden_layers,
        query_heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_dim,
        hidden_size=config.hidden_size,
        image_tokens=81,
    )
    means = np.random.default_rng(0).normal(size=(2, config.head_dim)).astype(np.float32)
    plan = PruningPlan.manual(
        ModelRef(name="tiny", revision="sha256:0", architecture="LlavaForConditionalGeneration"),
        geometry,
        removed=[(1, 2), (2, 0)],
        text_only=[(2, 1)],
        compensation=Compensation(method="mean", means=means),
    )
    inputs = inputs_of(processor, ["How many red circles are there?"])
    with plan_treated(model, plan, block_size=32):
        by_plan = logits_of(model, inputs)
    with treated(model, plan.treatments, compensation_means=means, block_size=32):
        assert torch.equal(by_plan, logits_of(model, inputs))
    with treated(model, plan.treatments, block_size=32):
        assert (by_plan - logits_of(model, inputs)).abs().max() > 0.01


def test_wrong_arguments_are_refused(llava):
    model, processor = llava
    config = model.config.text_config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    text_only, removed = [["text_only"] * heads] * layers, [["removed"] * heads] * layers
    for treatments, means, said in (
        ([["full"] * heads] * (layers - 1), None, f"{layers} layers"),
        ([["full"] * (heads + 1)] * layers, None, f"{heads} heads"),
        ([["gone"] * heads] * layers, None, "gone"),
        (removed, np.zeros((3, config.head_dim)), "shape"),
    ):
        with pytest.raises(ValueError, match=said), treated(model, treatments, compensation_means=means):
            pass
    embeddings = model.get_input_embeddings()(torch.tensor([[5, 6, 7]]))
    with treated(model, text_only):
        with pytest.raises(ValueError, match="input_ids"):
            model(inputs_embeds=embeddings)
        with pytest.raises(ValueError, match="without earlier"):
            model.model.language_model(inputs_embeds=embeddings)
        with pytest.raises(ValueError, match="without earlier"), torch.no_grad():
            model.generate(**inputs_of(processor, ["yes?"]), max_new_tokens=3, do_sample=False)


def test_image_blocks_against_brute_force(random_seed):
    rng = np.random.default_rng(random_seed)
    found = 0
    for _ in range(300):
        n, size = int(rng.integers(1, 40)), int(rng.integers(1, 7))
        image, valid = np.zeros((3, n), bool), np.zeros((3, n), bool)
        expected = np.zeros((3, n), bool)
        for row in range(3):
            start, stop = sorted(rng.integers(0, n + 1, 2)) if rng.random() < 0.8 else (0, n)
            valid[row, start:stop] = True
            for _ in range(2):
                a, b = sorted(rng.integers(0, n + 1, 2))
                image[row, a:b] = True
            image[row] &= rng.random(n) < 0.95
            for first in range(start, stop - size + 1, size):
                if image[row, first : first + size].all():
                    expected[row, first : first + size] = True
        blocks = image_blocks(torch.from_numpy(image), torch.from_numpy(valid), size)
        assert (blocks.numpy() == expected).all()
        found += int(expected.sum())
    assert found > 100
