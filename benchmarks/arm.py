"""One arm of a benchmark: a process of its own that starts one vLLM engine and does with it what it is sent.

The engine runs in this process, so that scheduler and KV cache can be looked at while it works. Does not know which
arm it is, what the other does, or what tasks there are.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from benchmarks import connected_process

Result = TypeVar("Result", covariant=True)


class Task(Protocol[Result]):
    """What an arm can be sent: it and its result travel between processes."""

    def run(self, engine: Any) -> Result:
        """Do it with a `vllm.LLM` whose engine core is in this process."""
        ...


class Arm:
    """The parent's side. It does not wait for the engine until its facts, or a result, are asked for."""

    module: ClassVar[str] = "benchmarks.arm"
    """Whose `main` is the other side."""

    def __init__(
        self, name: str, settings: dict[str, Any], plan: dict[str, Any] | None, env: dict[str, str], log: Path
    ):
        self.name, self.log = name, log
        self.process, self.connection = connected_process.start(self.module, env, log)
        self._send((settings, plan))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the engine has made of its memory."""
        received: dict[str, Any] = self._receive()
        return received

    def wait(self) -> None:
        """Wait until the engine is up."""
        _ = self.facts

    def run(self, task: Task[Result]) -> Result:
        self.wait()
        self._send(task)
        result: Result = self._receive()
        return result

    def close(self) -> None:
        """End the engine once what it was sent is done."""
        self.connection.close()
        self.process.wait(120)

    def kill(self) -> None:
        """End the engine whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def _send(self, message: Any) -> None:
        try:
            self.connection.send(message)
        except connected_process.ENDED:
            raise self._ended() from None

    def _receive(self) -> Any:
        try:
            return self.connection.recv()
        except connected_process.ENDED:
            raise self._ended() from None

    def _ended(self) -> RuntimeError:
        tail = self.log.read_text(errors="replace")[-4000:]
        return RuntimeError(f"arm {self.name} ended; its log ends with\n{tail}")


def main(number: int) -> None:
    """Serve the parent until it hangs up."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    connection = connected_process.parent(number)
    settings, plan = connection.recv()
    from vhserve.engine.plugin import register

    register()
    from vllm import LLM

    from profiles.store import plan_from_dict
    from vhserve.server.serving import engine_overrides

    surgery, admission = settings.pop("surgery", "auto"), settings.pop("admission", "reckon")
    if plan is not None:
        settings = settings | engine_overrides(plan_from_dict(plan, source="benchmark"), surgery, admission)
    engine = LLM(**settings)
    connection.send(facts(engine))
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(task.run(engine))


def facts(engine: Any) -> dict[str, Any]:
    """What the engine has made of its memory."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    config, cache = scheduler.kv_cache_config, engine.llm_engine.vllm_config.cache_config
    return {
        "blocks": config.num_blocks,
        "block_size": cache.block_size,
        "cache_dtype": cache.cache_dtype,
        "groups": len(config.kv_cache_groups),
        "kv_bytes": max(tensor.size for tensor in config.kv_cache_tensors),
        "layout": cache.kv_cache_layout,
        "async": bool(engine.llm_engine.vllm_config.scheduler_config.async_scheduling),
    }
