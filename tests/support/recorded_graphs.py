"""CUDA graphs without CUDA: what a graph would launch again is recorded, and done again on the very same tensors.

Owns stand-ins for `torch.cuda.CUDAGraph` and `torch.cuda.graph`. While one captures, every operation of torch and every
launch of a kernel in Triton's interpreter is noted with its arguments as they are: scalars, grids, and tensors, which
are kept. A replay does them in order and writes results where they were at capture. Whatever else Python did, its
choices and what it has put elsewhere, is not done again, as with CUDA. What was made without a content is NaN.

What nobody referred to when a graph was captured is NaN after its replay, as CUDA might have given it to that graph.
Does not see what compiled code does beside torch's operators. Knows nothing of vLLM but in which namespaces operators
call others.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final
from unittest.mock import patch

import torch
from graph_memory import GraphMemory
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

LEAVES: Final = frozenset({"aten", "prims", "_C", "_C_cache_ops"})
"""Namespaces of operators that are launched as they are."""
CALLING: Final = frozenset({"vllm", "vllm_ir", "vhserve"})
"""Namespaces of operators in Python: what they call is launched."""
KEYS: Final = ("CPU", "CompositeExplicitAutograd", "CompositeImplicitAutograd")
"""Where torch keeps the functions of such operators."""
WAITING: Final = frozenset(
    {"item", "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "_unique2", "unique_dim"}
)
"""Operators whose result the host waits for."""
EMPTY: Final = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


class NotCapturable(RuntimeError):
    """CUDA would not capture this."""


class RecordedGraph:
    """In place of `torch.cuda.CUDAGraph`.

    Attributes
    ----------
    counts
        Of all graphs of the process: `captured`, `replayed`, `operations` that replays have done, and tensors that
        they have `overwritten`.
    memory
        Of all graphs.
    """

    counts: ClassVar[Counter[str]] = Counter()
    memory: ClassVar[GraphMemory] = GraphMemory()

    def __init__(self, *args: Any, **options: Any) -> None:
        self.steps: list[Callable[[], object]] = []
        self._reused: list[torch.Tensor] = []
        self._recorder: _Recorder | None = None

    def capture_begin(self, *args: Any, **options: Any) -> None:
        if _Recorder.active is not None:
            raise NotCapturable("a graph within a graph")
        self._reused = [one for one in RecordedGraph.memory.free() if one.is_floating_point()]
        self._recorder = _Recorder.active = _Recorder(self.steps)
        self._recorder.__enter__()

    def capture_end(self) -> None:
        if self._recorder is None:
            raise NotCapturable("nothing is being captured")
        self._recorder.__exit__(None, None, None)
        self._recorder = _Recorder.active = None
        self.counts["captured"] += 1

    @staticmethod
    def is_recording() -> bool:
        """Whether any graph is being captured."""
        return _Recorder.active is not None

    def replay(self) -> None:
        if _Recorder.active is not None:
            raise NotCapturable("a replay within a graph")
        self.counts["replayed"] += 1
        self.counts["operations"] += len(self.steps)
        self.counts["overwritten"] += len(self._reused)
        for step in self.steps:
            step()
        for place in self._reused:
            place.fill_(torch.nan)

    def reset(self) -> None:
        self.steps.clear()

    def pool(self) -> tuple[int, int]:
        return 0, 0


@contextmanager
def recorded_graph(cuda_graph: RecordedGraph, *args: Any, **options: Any) -> Iterator[None]:
    """In place of `torch.cuda.graph`."""
    cuda_graph.capture_begin()
    try:
        yield
    finally:
        cuda_graph.capture_end()


@contextmanager
def graphs_recorded() -> Iterator[None]:
    """Put the stand-ins into `torch.cuda`, and note launches of Triton's interpreter."""
    from triton.runtime.interpreter import InterpretedFunction

    stock = InterpretedFunction.run

    def run(kernel: Any, *args: Any, **options: Any) -> None:
        if _Recorder.active is None:
            stock(kernel, *args, **options)
            return
        with _disable_current_modes():
            args, options = RecordedGraph.memory.hold((args, options))
            launch = functools.partial(stock, kernel, *args, **options)
            launch()
        _Recorder.active.steps.append(launch)

    with (
        patch.object(RecordedGraph, "memory", GraphMemory()),
        patch.multiple(torch.cuda, CUDAGraph=RecordedGraph, graph=recorded_graph),
        patch.object(InterpretedFunction, "run", run),
    ):
        yield


class _Recorder(TorchDispatchMode):
    """Notes what is launched, and launches it."""

    active: ClassVar["_Recorder | None"] = None

    def __init__(self, steps: list[Callable[[], object]]) -> None:
        super().__init__()
        self.steps = steps

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in CALLING:
            key = next(key for key in KEYS if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))
            with self:
                return func._op_dk(getattr(torch._C.DispatchKey, key), *args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if func.namespace not in LEAVES:
            raise NotCapturable(f"{func} is not known to be launched as it is, nor to call others")
        if func.namespace == "aten" and (name in WAITING or (name == "index" and _chooses_rows(args[1]))):
            raise NotCapturable(f"{func} makes the host wait for the device")
        out = func(*args, **kwargs)
        given = {_memory(one) for one in _tensors((args, kwargs))}
        made = _tensors(out)
        fresh = [_memory(one) not in given for one in made]
        for one, own in zip(made, fresh, strict=True):
            if own:
                RecordedGraph.memory.own(one)
        if func.namespace == "aten" and name in EMPTY:
            kept = RecordedGraph.memory.hold(made)
            self.steps.extend(functools.partial(one.fill_, torch.nan) for one in kept if one.is_floating_point())
        elif any(fresh) or func._schema.is_mutable:  # others are views
            kept = RecordedGraph.memory.hold((args, kwargs, made))
            self.steps.append(functools.partial(_launch, func, *kept, fresh))
        return out


def _launch(func: Any, args: Any, kwargs: Any, places: list[torch.Tensor], fresh: list[bool]) -> None:
    for result, place, own in zip(_tensors(func(*args, **kwargs)), places, fresh, strict=True):
        if own:
            place.copy_(result)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor) and one.numel()]


def _chooses_rows(indices: Any) -> bool:
    """Whether how many rows there are is known to the device alone."""
    return any(one.dtype in (torch.bool, torch.uint8) for one in _tensors(indices))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
