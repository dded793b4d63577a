"""vLLM's CPU platform with CUDA graphs, which `recorded_graphs` stand in for; a patch of the engine host's.

Owns what vLLM's Model Runner V2 is told so that it captures and replays them. Judges nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def graphs(captured: dict[str, Any]) -> Iterator[None]:
    """Let an engine with `enforce_eager=False` capture the graphs that its `compilation_config` names."""
    import torch
    from graph_memory import unowned
    from recorded_graphs import RecordedGraph, graphs_recorded
    from torch.utils._pytree import tree_map_only
    from vllm.compilation import cuda_graph
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.worker import workspace
    from vllm.v1.worker.cpu_worker import CPUWorker

    from vhserve.engine.weights import weight_views

    stock_check = CpuPlatform.check_and_update_config.__func__
    stock_warm_up = CPUWorker.compile_or_warm_up_model

    def check(cls: Any, vllm_config: Any) -> None:
        compilation = vllm_config.compilation_config
        sizes, mode = compilation.cudagraph_capture_sizes, compilation.mode
        stock_check(cls, vllm_config)
        compilation.cudagraph_capture_sizes, compilation.mode = sizes, mode
        # vLLM 0.33 runs kernels before there are requests, so that they are compiled; there is nothing to compile, and
        # the interpreter takes no mask of the grammars' kernel.
        vllm_config.kernel_config.enable_jit_warmup = False
        if mode:
            compilation.backend = "eager"  # what Inductor compiles for CPUs is not made of torch's operators

    def warm_up(worker: Any) -> Any:
        times = stock_warm_up(worker)
        if not workspace.is_workspace_manager_initialized():
            workspace.init_workspace_manager(worker.device)  # as GPU workers do
        worker.model_runner.capture_model()
        return times

    def weak(tensors: Any) -> Any:
        return tree_map_only(torch.Tensor, unowned, tensors)

    RecordedGraph.counts.clear()
    with ExitStack() as stack:
        stack.enter_context(graphs_recorded())
        for target, members in {
            CpuPlatform: {
                "check_and_update_config": classmethod(check),
                "support_static_graph_mode": classmethod(lambda cls: True),
                "get_static_graph_wrapper_cls": classmethod(lambda cls: "vllm.compilation.cuda_graph.CUDAGraphWrapper"),
                "graph_pool_handle": staticmethod(lambda: (0, 0)),
            },
            CPUWorker: {"compile_or_warm_up_model": warm_up},
            cuda_graph: {"weak_ref_tensors": weak},
            torch.cuda: {"graph_pool_handle": lambda: (0, 0)},
            weight_views: {"is_captured": lambda x: RecordedGraph.is_recording()},
        }.items():
            for name, member in members.items():
                stack.enter_context(patch.object(target, name, member, create=True))
        stack.callback(workspace.reset_workspace_manager)
        yield


@contextmanager
def new_lengths(captured: dict[str, Any]) -> Iterator[None]:
    """A mistake to find: Triton attention is given lengths in another tensor at every step."""
    from vllm.v1.attention.backends.triton_attn import TritonAttentionMetadataBuilder

    stock = TritonAttentionMetadataBuilder.build

    def build(builder: Any, *args: Any, **options: Any) -> Any:
        metadata = stock(builder, *args, **options)
        metadata.seq_lens = metadata.seq_lens.clone()
        return metadata

    with patch.object(TritonAttentionMetadataBuilder, "build", build):
        yield
