"""An API server's life: its rank, its engine's end, its shutdown.

Does not know how a server is drained. Importing it is cheap.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection, Coroutine
from typing import Any


def api_server_rank(vllm_config: Any) -> int:
    """Which of a server's API server processes this is; 0 is the first, or the only one.

    Symptom
        What is to run once for a server runs once in each API server.
    Cause
        A process knows its place by a field of the configuration that is not public.
    Removal
        vLLM makes the place public.
    """
    rank: int = vllm_config.parallel_config._api_process_rank
    return rank


def engine_failed(engine_client: Any) -> bool:
    """Whether an engine process of an API server has ended by itself, and not because the server stopped it.

    Symptom
        `vllm serve` exits with 0 when its engine was killed or failed.
    Cause
        Its server then stops as on SIGTERM; only the exit codes of the processes differ, and the client does not
        publish them.
    Removal
        `vllm serve` exits with another code than 0 when its engine ended by itself.
    """
    manager = engine_client.engine_core.resources.engine_manager
    stopped_or_running = (0, None, -signal.SIGTERM)
    return any(process.exitcode not in stopped_or_running for process in getattr(manager, "processes", ()))


def before_shutdown(engine_client: Any, prepare: Callable[[float], Coroutine[Any, Any, None]]) -> None:
    """Await `prepare(seconds)` before SIGTERM shuts an API server's engine client down; call this in its event loop.

    Symptom
        After SIGTERM, requests get status 500; with several API servers running streams break off; and the log has an
        `EngineDeadError` with its traceback.
    Cause
        On the signal vLLM's launcher calls the client's `shutdown` in a thread, and only then stops its HTTP server.
        That method tells the engine to end, which aborts what still comes (with several API servers it closes the
        sockets instead), and cancels the task that reads the engine's outputs last: a race, which the task loses on a
        busy machine, and then takes the closed sockets for a dead engine.
    Removal
        vLLM refuses requests, waits for those that run, and cancels that task, before it stops the engine.
    """
    loop = asyncio.get_running_loop()
    stock = engine_client.shutdown

    def shutdown(timeout: float | None = None) -> None:
        engine_client.shutdown = stock  # it is called again as the server's context ends
        begun = time.monotonic()
        if not _is_running_here(loop):  # there, an engine has ended by itself
            try:
                asyncio.run_coroutine_threadsafe(prepare(timeout or 0.0), loop).result()
            except Exception:
                logging.getLogger("vllm.vhserve").exception("the server could not be drained")
        stock(timeout=timeout and max(0.0, timeout - (time.monotonic() - begun)))

    engine_client.shutdown = shutdown


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


async def stop_reading_outputs(engine_client: Any) -> None:
    """Cancel the task of an API server that reads its engines' outputs, and wait until it has ended.

    Symptom, Cause, Removal
        As of `before_shutdown`.
    """
    task = engine_client.output_handler
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def abort_requests(engine_client: Any) -> None:
    """Abort every request of an API server; each ends with the reason `abort`.

    Symptom
        Requests that outlast the time to drain in end as if the engine had died.
    Cause
        vLLM kills the engine then; which requests run is not public.
    Removal
        vLLM aborts them.
    """
    await engine_client.abort(list(running_requests(engine_client)))


def running_requests(engine_client: Any) -> Collection[str]:
    """Names of the requests of an API server that have not ended.

    Symptom, Cause, Removal
        As of `abort_requests`.
    """
    names: Collection[str] = engine_client.output_processor.external_req_ids
    return names


def after_outputs(engine_client: Any, heard: Callable[[], None]) -> None:
    """Call `heard` whenever an API server gets outputs of its engine.

    Symptom
        An engine that is stuck in a step looks like one that has nothing to do; `/health` says 200.
    Cause
        vLLM looks whether the engine's process lives, and not whether it answers.
    Removal
        vLLM's `/health` tells an engine that does not answer.
    """
    core = engine_client.engine_core
    stock = core.get_output_async

    async def get_output_async() -> Any:
        outputs = await stock()
        heard()
        return outputs

    core.get_output_async = get_output_async
