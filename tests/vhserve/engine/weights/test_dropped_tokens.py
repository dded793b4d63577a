"""Projections that leave out the last heads for dropped tokens, against one dense projection in float64.

Both ways of holding the weight run through the same cases; entries that are undefined are not compared.
"""

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.vllm

WAYS = ("packed", "views")
SIZE = 32
"""Of a head."""


@dataclass(frozen=True)
class Shape:
    """Heads of a layer, and a batch: query heads and KV heads are (others, lasts)."""

    queries: tuple[int, int]
    kv: tuple[int, int]
    hidden: int
    tokens: int
    kept: int | None
    bias: bool


SHAPES = {
    "MHA": Shape((2, 3), (2, 3), 96, 70, 9, bias=False),
    "GQA": Shape((4, 8), (1, 2), 128, 50, 7, bias=False),
    "GQA, query heads of one group alone": Shape((5, 3), (2, 2), 128, 41, 6, bias=True),
    "bias": Shape((1, 3), (1, 3), 64, 33, 5, bias=True),
    "no other heads": Shape((0, 4), (0, 4), 64, 40, 4, bias=False),
    "no other heads, bias": Shape((0, 4), (0, 2), 64, 40, 4, bias=True),
    "no kept tokens": Shape((3, 2), (3, 2), 64, 32, 0, bias=True),
    "no other heads, no kept tokens": Shape((0, 3), (0, 3), 64, 32, 0, bias=True),
    "no dropped tokens": Shape((2, 3), (2, 3), 96, 20, None, bias=True),
    "all tokens are kept": Shape((2, 3), (2, 3), 96, 20, 20, bias=True),
}


def random_shape(seed: int) -> Shape:
    rng = random.Random(seed)
    group = rng.choice([1, 2, 4])
    others, lasts = rng.randint(0, 3), rng.randint(1, 3)
    tokens = rng.randint(1, 200)
    return Shape(
        (others * group, lasts * group),
        (others, lasts),
        32 * rng.randint(1, 5),
        tokens,
        rng.choice([None, 0, rng.randint(0, tokens)]),
        rng.random() < 0.5,
    )


CASES = SHAPES | {f"seed {seed}": random_shape(seed) for seed in range(20)}


class Layer(nn.Module):
    """A linear layer as far as a linear method looks at it; `weight` stays, as on devices, where it isn't packed."""

    _cpu_skip_gemm_dispatch = True

    def __init__(self, outputs: int, inputs: int, bias: bool, rng: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(outputs, inputs, generator=rng) / inputs**0.5
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.dense = weight.double()
        self.bias = torch.randn(outputs, generator=rng) if bias else None

    def expected(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.double()
        return nn.functional.linear(x.double(), self.dense, bias)


def qkv(way: str, shape: Shape, rng: torch.Generator, launch_worth: int = 0) -> tuple[Any, Layer]:
    """A linear method of `qkv_proj` and its layer, loaded."""
    from vhserve.engine.weights.dropped_tokens import HeadParts
    from vhserve.engine.weights.packed_parts import PackedQKV
    from vhserve.engine.weights.weight_views import QKVViews

    queries, keys = (HeadParts(*(heads * SIZE for heads in one)) for one in (shape.queries, shape.kv))
    runs = (queries, keys, keys)
    method: Any = PackedQKV("layer", runs) if way == "packed" else QKVViews("layer", runs, launch_worth)
    layer = Layer(sum(sum(run) for run in runs), shape.hidden, shape.bias, rng)
    method.process_weights_after_loading(layer)
    return method, layer


def output(way: str, shape: Shape, rng: torch.Generator, launch_worth: int = 0) -> tuple[Any, Layer]:
    """A linear method of `o_proj` and its layer, loaded."""
    from vhserve.engine.weights.dropped_tokens import HeadParts
    from vhserve.engine.weights.packed_parts import PackedOutput
    from vhserve.engine.weights.weight_views import OutputViews

    inputs = HeadParts(*(heads * SIZE for heads in shape.queries))
    method: Any = (
        PackedOutput("layer", inputs, shape.hidden) if way == "packed" else OutputViews("layer", inputs, launch_worth)
    )
    layer = Layer(shape.hidden, sum(inputs), shape.bias, rng)
    method.process_weights_after_loading(layer)
    return method, layer


def kept_tokens(shape: Shape, rng: torch.Generator) -> torch.Tensor | None:
    if shape.kept is None:
        return None
    return torch.randperm(shape.tokens, generator=rng)[: shape.kept].sort().values


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_queries_keys_and_values_are_those_of_one_projection(name: str, way: str) -> None:
    shape, rng = CASES[name], torch.Generator().manual_seed(sum(map(ord, name)))
    print(shape)
    method, layer = qkv(way, shape, rng)
    x, kept = torch.randn(shape.tokens, shape.hidden, generator=rng), kept_tokens(shape, rng)
    got, expected = method.project_kept(x, layer.bias, kept), layer.expected(x)
    assert got.shape == expected.shape
    defined = torch.ones_like(got, dtype=torch.bool)
    if kept is not None:
        dropped = torch.ones(shape.tokens, dtype=torch.bool)
        dropped[kept] = False
        lasts = torch.cat([torch.arange(sum(heads)) >= heads[0] for heads in (shape.queries, shape.kv, shape.kv)])
        defined[dropped[:, None] & lasts.repeat_interleave(SIZE)] = False
    assert torch.where(defined, (got - expected).abs(), 0).max() < 1e-5


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_one_projection(name: str, way: str) -> None:
    """In which the last heads contribute zero to dropped tokens."""
    shape, rng = CASES[name], torch.Generator().manual_seed(sum(map(ord, name)))
    print(shape)
    method, layer = output(way, shape, rng)
    x, kept = torch.randn(shape.tokens, sum(shape.queries) * SIZE, generator=rng), kept_tokens(shape, rng)
    if kept is not None:
        dropped = torch.ones(shape.tokens, dtype=torch.bool)
        dropped[kept] = False
        x[:, shape.queries[0] * SIZE :][dropped] = 0
    got = method.project_kept(x, layer.bias, kept)
    assert got.shape == (shape.tokens, shape.hidden)
    assert (got - layer.expected(x)).abs().max() < 1e-5


def test_every_row_of_a_projection_is_in_one_part() -> None:
    from vhserve.engine.weights.dropped_tokens import HeadParts
    from vhserve.engine.weights.packed_parts import PackedQKV

    # Five query heads and four KV heads, of which the last three and two drop tokens.
    queries, keys = HeadParts(2 * SIZE, 3 * SIZE), HeadParts(2 * SIZE, 2 * SIZE)
    weight = torch.arange(13 * SIZE * 3.0).view(13 * SIZE, 3)
    others, lasts = PackedQKV("layer", (queries, keys, keys)).weights(weight)
    heads = weight.split(SIZE)
    assert torch.equal(others, torch.cat([heads[index] for index in (0, 1, 5, 6, 9, 10)]))
    assert torch.equal(lasts, torch.cat([heads[index] for index in (2, 3, 4, 7, 8, 11, 12)]))


class Counted:
    """Tokens that meet a layer's whole weight, by its linear method."""

    def __init__(self, method: Any) -> None:
        self.tokens: list[int] = []
        stock = method.stock

        def counted(layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            self.tokens.append(len(x))
            projected: torch.Tensor = stock(layer, x, bias)
            return projected

        method.stock = counted


@pytest.mark.parametrize("projection", [qkv, output])
def test_views_are_taken_where_they_save_as_much_as_their_launches_are_worth(projection: Any) -> None:
    """Half of the heads are the last: of 100 tokens of which 10 are kept, 40 tokens' worth of a projection is saved."""
    shape, rng = Shape((4, 4), (2, 2), 96, 100, 10, bias=True), torch.Generator().manual_seed(3)
    for launch_worth, expected in ((0, [10]), (None, [100])):
        method, layer = projection("views", shape, rng, launch_worth)
        counted = Counted(method)
        x, kept = torch.zeros(100, layer.weight.shape[1]), kept_tokens(shape, rng)
        assert method.saved(100, 10) == 40 * layer.weight.numel()
        method.project_kept(x, layer.bias, kept)
        assert counted.tokens == expected
        method.least_saved = method.saved(100, 10)
        method.project_kept(x, layer.bias, kept)
        method.least_saved += 1
        method.project_kept(x, layer.bias, kept)
        assert counted.tokens == [*expected, 10, 100]


@pytest.mark.parametrize("projection", [qkv, output])
def test_where_no_token_is_dropped_views_are_vllms_one_projection_to_the_bit(projection: Any) -> None:
    shape, rng = Shape((3, 5), (3, 5), 96, 77, None, bias=True), torch.Generator().manual_seed(4)
    method, layer = projection("views", shape, rng)
    x = torch.randn(77, layer.weight.shape[1], generator=rng)
    stock = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(method.project_kept(x, layer.bias, None), stock)
    everyone = torch.arange(77)
    assert torch.equal(method.project_kept(x, layer.bias, everyone), stock)


@pytest.mark.parametrize("projection", [qkv, output])
def test_a_graph_that_is_captured_holds_vllms_one_projection(projection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vhserve.engine.weights import weight_views

    shape, rng = Shape((3, 5), (3, 5), 96, 77, 6, bias=True), torch.Generator().manual_seed(5)
    method, layer = projection("views", shape, rng)
    counted = Counted(method)
    monkeypatch.setattr(weight_views, "is_captured", lambda x: True)
    method.project_kept(torch.zeros(77, layer.weight.shape[1]), layer.bias, kept_tokens(shape, rng))
    assert counted.tokens == [77]


def test_views_neither_copy_the_weight_nor_read_the_last_heads_of_dropped_tokens() -> None:
    shape, rng = Shape((2, 3), (2, 3), 96, 40, 6, bias=False), torch.Generator().manual_seed(6)
    for projection in (qkv, output):
        method, layer = projection("views", shape, rng)
        address = layer.weight.data_ptr()
        kept = kept_tokens(shape, rng)
        assert kept is not None
        x = torch.randn(40, layer.weight.shape[1], generator=rng)
        if projection is output:
            dropped = torch.ones(40, dtype=torch.bool)
            dropped[kept] = False
            x[:, 2 * SIZE :][dropped] = torch.nan
            assert method.project_kept(x, None, kept).isfinite().all()
        assert layer.weight.data_ptr() == address
        assert not [one for one in vars(method).values() if isinstance(one, torch.Tensor)]


def test_layers_that_are_alike_have_the_same_compiled_code() -> None:
    """Their names are arguments of it, so that vLLM compiles one and not as many as the model has layers."""
    from vhserve.engine.weights.dropped_tokens import DroppedTokensLinear

    code = []

    def compiler(module: Any, inputs: list[Any]) -> Any:
        code.append(module.code)
        return lambda *given: (given[0],)

    for name in ("model.layers.0.attn_text_only", "model.layers.1.attn_text_only"):
        layer: Any = nn.Linear(8, 8)
        layer.output_size_per_partition = 8
        method = DroppedTokensLinear(name, "qkv_proj")
        torch.compiler.reset()
        torch.compile(lambda x, method=method, layer=layer: method.apply(layer, x), backend=compiler)(torch.ones(3, 8))
    assert "dropped_tokens_linear" in code[0]
    assert code[0] == code[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="what cuBLAS writes in place shows on a GPU only")
@pytest.mark.parametrize("projection", [qkv, output])
def test_on_a_gpu_nothing_is_held_beside_the_output_and_the_kept_rows(projection: Any) -> None:
    shape, rng = Shape((8, 8), (8, 8), 512, 8192, 64, bias=False), torch.Generator().manual_seed(7)
    method, layer = projection("views", shape, rng)
    layer.to("cuda")
    x = torch.zeros(8192, layer.weight.shape[1], device="cuda")
    kept = torch.arange(64, device="cuda")
    method.project_kept(x, None, kept)  # cuBLAS allocates its workspace
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    made = method.project_kept(x, None, kept)
    assert torch.cuda.max_memory_allocated() - before < 1.1 * made.nbytes
