"""The stand-ins for CUDA graphs replay what a graph would, go wrong where it would, and refuse what CUDA refuses."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from graph_memory import unowned
from recorded_graphs import NotCapturable, RecordedGraph, recorded_graph

from vhserve.engine.operators import opaque_operator

CALLS: list[int] = []


def _doubled(x: torch.Tensor, times: int) -> torch.Tensor:
    CALLS.append(times)
    out = torch.empty_like(x)
    torch.mul(x, 2 if times else x.sum(), out=out)
    return out


double = opaque_operator("recorded_graphs_test", _doubled, lambda x, times: torch.empty_like(x))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def captured(function: object, *args: torch.Tensor) -> tuple[RecordedGraph, torch.Tensor]:
    graph = RecordedGraph()
    with recorded_graph(graph):
        out = function(*args)  # type: ignore[operator]
    return graph, out


def test_a_replay_reads_and_writes_the_same_tensors() -> None:
    x, total = torch.arange(6.0), torch.zeros(3)

    def step(x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        rows = x.view(2, 3)[1]  # views stay views
        total += rows
        return rows * 3

    graph, out = captured(step, x, total)
    assert out.tolist() == [9, 12, 15]
    x.copy_(torch.arange(6.0) + 1)
    graph.replay()
    assert out.tolist() == [12, 15, 18]
    assert total.tolist() == [7, 9, 11]


def test_what_python_chose_stays() -> None:
    """And a tensor that is another at each step is never read again."""
    given = {"scale": torch.ones(1), "add": 1}
    x = torch.zeros(2)
    graph, out = captured(lambda x: x * given["scale"] + given["add"], x)
    given.update(scale=torch.full((1,), 5.0), add=2)
    x.fill_(1)
    graph.replay()
    assert out.tolist() == [2, 2]


def test_an_operator_in_python_is_what_it_calls() -> None:
    x = torch.ones(2)
    CALLS.clear()
    graph, out = captured(lambda x: double(x, 1) + 1, x)
    x.fill_(4)
    graph.replay()
    assert out.tolist() == [9, 9]
    assert CALLS == [1]


def test_memory_without_content_holds_nothing() -> None:
    graph, out = captured(lambda: torch.empty(3))
    out.fill_(1)
    graph.replay()
    assert out.isnan().all()


def test_what_nobody_refers_to_may_be_given_to_a_later_graph() -> None:
    """And what somebody refers to is not, nor what is needed within one graph."""
    x = torch.ones(2)
    first, (freed, kept) = captured(lambda x: ((x + 1) * 3, x * 2), x)
    left = unowned(freed)
    del freed
    second, out = captured(lambda x: x + 5, x)
    x.fill_(2)
    first.replay()
    assert left.tolist() == [9, 9]
    second.replay()
    assert left.isnan().all()
    assert kept.tolist() == [4, 4]
    first.replay()
    assert left.tolist() == [9, 9]
    assert out.tolist() == [7, 7]


@pytest.mark.parametrize("wait", [lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 1]])
def test_the_host_may_not_wait(wait: object) -> None:
    with pytest.raises(NotCapturable):
        captured(wait, torch.ones(2))
    captured(lambda x: x + 1, torch.ones(2))  # the next one works


def test_launches_of_kernels_are_replayed() -> None:
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = """
import torch
from graph_memory import unowned
from recorded_graphs import RecordedGraph, graphs_recorded, recorded_graph
from vhserve.engine.attention.compaction_kernel import compact_tables

table, lengths = torch.tensor([[3, 0, 5, 7]], dtype=torch.int32), torch.tensor([100], dtype=torch.int32)
out, kept = torch.zeros(1, 5, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
with graphs_recorded():
    graph = RecordedGraph()
    with recorded_graph(graph):
        compact_tables(table, lengths, out, kept, 32)
        more = kept + 1
    print(out[0, :3].tolist(), more.item(), len(graph.steps))
    table[0, 1], lengths[0] = 4, 70
    graph.replay()
    print(out[0, :3].tolist(), more.item())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["[3, 5, 7] 69 2", "[3, 4, 5] 71"], done.stderr
