"""A server of the demo model on loopback, for benchmarks that measure from outside; ended with its block.

Knows no load.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vhserve.child_processes import VHSERVE, ending_on_signals, free_port, serving

FLAGS = ("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "8", "--enforce-eager")
"""Enough for the demo model's prompts; few streams, so that two cores can be saturated and blocks run short."""

_START_LIMIT = 400.0


@dataclass(frozen=True)
class DemoServer:
    """A running server. Its own processes are children of this one."""

    port: int
    log: Path

    @property
    def base_url(self) -> str:
        """Address of the endpoint."""
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def demo_server(log: Path, flags: Sequence[str] = (), plan: Path | None = None) -> Iterator[DemoServer]:
    """Serve the demo model until the block ends, by SIGTERM too."""
    port = free_port()
    planned = ("--plan", str(plan)) if plan is not None else ()
    command = (*VHSERVE, "serve", "demo", *planned, "--host", "127.0.0.1", "--port", str(port), *FLAGS, *flags)
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    with ending_on_signals(), serving("demo", command, port, log, environment, _START_LIMIT):
        yield DemoServer(port, log)
