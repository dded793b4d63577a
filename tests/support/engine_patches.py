"""What an engine of a host is changed in while it lives: context managers by name, for `engine_host.Job.patches`.

Each is given a dictionary to leave what it has captured in. Judges nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graph_platform import graphs, new_lengths
from late_copies import late_copies
from triton_experts import triton_adapters


@contextmanager
def lively_dummy_weights(captured: dict[str, Any]) -> Iterator[None]:
    """Give dummy weights a size at which heads matter, and keep a copy of them.

    vLLM's own lie within 0.001 of zero, with which every model says the same.
    """
    import torch
    from vllm.model_executor.model_loader import dummy_loader

    stock_fill, stock_load = dummy_loader.initialize_single_dummy_weight, dummy_loader.DummyModelLoader.load_weights

    def fill(tensor: torch.Tensor, **named: Any) -> None:  # vLLM 0.33 says whose it is
        if tensor.ndim == 0:
            stock_fill(tensor, **named)
        elif tensor.ndim == 1:
            stock_fill(tensor, 0.5, 1.5, **named)
        else:
            reach = 2 * tensor[0].numel() ** -0.5
            stock_fill(tensor, -reach, reach, **named)

    def load(self: Any, model: torch.nn.Module, model_config: Any) -> None:
        stock_load(self, model, model_config)
        captured["weights"] = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}

    dummy_loader.initialize_single_dummy_weight = fill
    dummy_loader.DummyModelLoader.load_weights = load  # type: ignore[method-assign]
    try:
        yield
    finally:
        dummy_loader.initialize_single_dummy_weight = stock_fill
        dummy_loader.DummyModelLoader.load_weights = stock_load  # type: ignore[method-assign]


@contextmanager
def async_scheduling(captured: dict[str, Any]) -> Iterator[None]:
    """Let vLLM schedule a step ahead on a CPU: its CPU platform turns that off, because its runner waits on streams.

    Stands in for the streams and events, which have nothing to wait for where work is done at once.
    """
    from unittest.mock import patch

    import torch
    import vllm.v1.worker.cpu.shm  # noqa: F401  # its own stand-ins are to be there before, and still there after these
    from vllm.platforms.cpu import CpuPlatform

    class Done:
        device = torch.device("cpu")

        def __init__(self, *args: Any, **options: Any) -> None: ...

        def query(self) -> bool:
            return True

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **options: None

        def __enter__(self) -> "Done":
            return self

        def __exit__(self, *error: object) -> None: ...

    stock = CpuPlatform.check_and_update_config.__func__

    def check(cls: Any, vllm_config: Any) -> None:
        stock(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with (
        patch.object(CpuPlatform, "check_and_update_config", classmethod(check)),
        patch.multiple(torch.cuda, Event=Done, Stream=Done, stream=Done, current_stream=Done),
    ):
        yield


@contextmanager
def triton_attention(captured: dict[str, Any]) -> Iterator[None]:
    """vLLM's Triton attention, as on a GPU, and weights that are not packed; only in a host of `device_engines`."""
    from unittest.mock import patch

    import torch
    from vllm.model_executor.layers.linear import LinearBase
    from vllm.platforms.cpu import CpuPlatform
    from vllm.triton_utils import HAS_TRITON
    from vllm.v1.attention import selector

    from vhserve.engine.checks import plan_validation

    assert HAS_TRITON
    backend = "vllm.v1.attention.backends.triton_attn.TritonAttentionBackend"
    with (
        patch.object(CpuPlatform, "get_attn_backend_cls", classmethod(lambda cls, *args, **options: backend)),
        # vLLM remembers its choice.
        patch.object(selector, "_cached_get_attn_backend", selector._cached_get_attn_backend.__wrapped__),
        patch.object(torch.cuda, "get_device_capability", lambda *args: (9, 0)),  # asked before the cache is written
        patch.object(LinearBase, "_cpu_skip_gemm_dispatch", True, create=True),
        patch.object(plan_validation, "check_on_cpus", lambda kind: None),  # KV caches that only Triton has
    ):
        yield


PIECES: list[tuple[list[str], bool]] = []
"""Operators of each piece of the model that was split last, with `noted_pieces`, and whether graphs are split at it."""


@contextmanager
def noted_pieces(captured: dict[str, Any]) -> Iterator[None]:
    """Keep what vLLM splits a compiled model into; it does so with `graphs`."""
    from unittest.mock import patch

    from vllm.compilation import backends

    stock = backends.split_graph

    def split(*args: Any) -> Any:
        whole, pieces = stock(*args)
        PIECES[:] = [
            (
                [str(node.target) for node in piece.graph.graph.nodes if node.op == "call_function"],
                piece.is_splitting_graph,
            )
            for piece in pieces
        ]
        return whole, pieces

    with patch.object(backends, "split_graph", split):
        yield


@contextmanager
def views_always(captured: dict[str, Any]) -> Iterator[None]:
    """On a device, views of the weight wherever a token is dropped, whatever they save: tiny models save little."""
    from unittest.mock import patch

    from vhserve.engine.weights import weight_views

    with patch.object(weight_views, "LAUNCH_WORTH", -(10**18)):
        yield


@contextmanager
def stripped_image_data(captured: dict[str, Any]) -> Iterator[None]:
    """vLLM's own choice of the pixels that go to the worker, whatever an earlier engine of this process has mended."""
    from unittest.mock import patch

    from vllm.multimodal.utils import strip_covered_mm_data

    with patch("vllm.v1.core.sched.output.strip_covered_mm_data", strip_covered_mm_data):
        yield


@contextmanager
def kept_image_data(captured: dict[str, Any]) -> Iterator[None]:
    """`keep_image_data` for an engine without a plan."""
    from vhserve.compat.scheduler import keep_image_data

    with stripped_image_data(captured):
        keep_image_data()
        yield


PATCHES = {
    "lively_dummy_weights": lively_dummy_weights,
    "async_scheduling": async_scheduling,
    "triton_attention": triton_attention,
    "triton_adapters": triton_adapters,
    "noted_pieces": noted_pieces,
    "views_always": views_always,
    "stripped_image_data": stripped_image_data,
    "kept_image_data": kept_image_data,
    "late_copies": late_copies,
    "graphs": graphs,
    "new_lengths": new_lengths,
}
