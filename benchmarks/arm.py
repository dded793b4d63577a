"""One arm of a benchmark: a process of its own that starts one vLLM engine and runs workloads that it is sent.

The engine runs in this process, so that scheduler and KV cache can be looked at while it works. Does not know which
arm it is, nor what the other does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Workload:
    """Requests that are sent so that at most `concurrency` are in the engine at once.

    `capacity` sends all at once instead, and ends at the first preemption, or when none can come any more. With
    `cpu_time` times are of this process's CPU and not of the wall's clock, so that what else a machine does counts
    less; they mean something where an engine has one thread and waits for no device.
    """

    requests: int
    concurrency: int
    images: int
    text_tokens: int
    output_tokens: int
    seed: int = 0
    capacity: bool = False
    cpu_time: bool = False


@dataclass
class Result:
    """What a workload took. Times in seconds.

    Attributes
    ----------
    most_answering, most_computed
        Greatest number of requests at once, until the first preemption, that had a token of their reply, and whose
        prompt was computed.
    """

    seconds: float
    output_tokens: int
    first_token: list[float] = field(default_factory=list)
    per_token: list[float] = field(default_factory=list)
    preemptions: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    most_answering: int = 0
    most_computed: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds

    def count(self, running: Iterable[Any]) -> None:
        """Take the scheduler's requests into account for `most_answering` and `most_computed`."""
        # Not those that wait for the encoder with the text before their image prefilled.
        at_once = list(running)
        answering = sum(one.num_output_tokens > 0 for one in at_once)
        computed = sum(one.num_computed_tokens >= one.num_prompt_tokens for one in at_once)
        self.most_answering = max(self.most_answering, answering)
        self.most_computed = max(self.most_computed, computed)


class Arm:
    """The parent's side. It does not wait for the engine until its facts, or a result, are asked for."""

    def __init__(
        self, name: str, settings: dict[str, Any], plan: dict[str, Any] | None, env: dict[str, str], log: Path
    ):
        self.name, self.log = name, log
        address = str(log.with_suffix(".socket"))
        # Imported, not run as the main module: what it sends must have the class names that the parent knows.
        command = [sys.executable, "-c", f"from benchmarks.arm import main; main({address!r})"]
        with Listener(address, family="AF_UNIX") as listener, log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
            self.connection: Connection = listener.accept()
        self.connection.send((settings, plan))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the engine has made of its memory."""
        received: dict[str, Any] = self._receive()
        return received

    def wait(self) -> None:
        """Wait until the engine is up."""
        _ = self.facts

    def run(self, workload: Workload) -> Result:
        self.wait()
        self.connection.send(workload)
        result: Result = self._receive()
        return result

    def close(self) -> None:
        self.connection.close()
        self.process.wait(120)

    def _receive(self) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            tail = self.log.read_text(errors="replace")[-4000:]
            raise RuntimeError(f"arm {self.name} ended (log: {self.log})\n{tail}") from None


def main(address: str) -> None:
    """Serve the parent until it hangs up."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    connection = Client(address, family="AF_UNIX")
    settings, plan = connection.recv()
    from vhserve.engine.plugin import register

    register()
    from vllm import LLM

    from profiles.store import plan_from_dict
    from vhserve.server.serving import engine_overrides

    surgery = settings.pop("surgery", "auto")
    if plan is not None:
        settings = settings | engine_overrides(plan_from_dict(plan, source="benchmark"), surgery)
    engine = LLM(**settings)
    connection.send(facts(engine))
    while True:
        try:
            workload = connection.recv()
        except EOFError:
            return
        connection.send(run(engine, workload))


def facts(engine: Any) -> dict[str, Any]:
    """What the engine has made of its memory."""
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    config = scheduler.kv_cache_config
    return {
        "blocks": config.num_blocks,
        "block_size": engine.llm_engine.vllm_config.cache_config.block_size,
        "groups": len(config.kv_cache_groups),
        "kv_bytes": max(tensor.size for tensor in config.kv_cache_tensors),
        "layout": engine.llm_engine.vllm_config.cache_config.kv_cache_layout,
        "async": bool(engine.llm_engine.vllm_config.scheduler_config.async_scheduling),
    }


def run(engine: Any, workload: Workload) -> Result:
    """Run one workload to its end."""
    from vllm import SamplingParams

    core = engine.llm_engine
    scheduler = core.engine_core.engine_core.scheduler
    clock = time.process_time if workload.cpu_time else time.perf_counter
    wanted = SamplingParams(temperature=0, max_tokens=workload.output_tokens, ignore_eos=True)
    waiting = prompts(workload)
    result = Result(0.0, 0)
    sent: dict[str, float] = {}
    first: dict[str, float] = {}
    limit = workload.requests if workload.capacity else workload.concurrency
    started = clock()
    with counting(scheduler, result):
        while waiting or core.has_unfinished_requests():
            while waiting and len(sent) < limit:
                name, prompt = waiting.pop(0)
                core.add_request(name, prompt, wanted)
                sent[name] = clock()
            outputs = core.step()
            now = clock()
            result.steps += 1
            if not result.preemptions:
                result.count(scheduler.running)
            for output in outputs:
                tokens = len(output.outputs[0].token_ids)
                first.setdefault(output.request_id, now)
                if output.finished:
                    begun = sent.pop(output.request_id)
                    result.output_tokens += tokens
                    result.prompt_tokens = len(output.prompt_token_ids)
                    result.first_token.append(first[output.request_id] - begun)
                    if tokens > 1:
                        result.per_token.append((now - first[output.request_id]) / (tokens - 1))
            if workload.capacity and result.preemptions:
                core.abort_request(list(sent))
                waiting.clear()
                sent.clear()
                while core.has_unfinished_requests():
                    core.step()
    result.seconds = clock() - started
    return result


def prompts(workload: Workload) -> list[tuple[str, dict[str, Any]]]:
    """Request ids and prompts of a workload: the images of one seed are always the same, and no two alike."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(workload.seed)
    words = " ".join(f"word{number}" for number in rng.integers(0, 995, max(1, workload.text_tokens - 1)))
    head, tail = words[: len(words) // 4].rsplit(" ", 1)[0], words[len(words) // 4 :].split(" ", 1)[-1]
    made = []
    for number in range(workload.requests):
        prompt: dict[str, Any] = {"prompt": f"<s> {head} {'<image> ' * workload.images} {tail}"}
        if workload.images:
            pictures = rng.integers(0, 256, (workload.images, 64, 64, 3), dtype=np.uint8)
            prompt["multi_modal_data"] = {"image": [Image.fromarray(picture) for picture in pictures]}
        made.append((f"{workload.seed}-{number}-{time.monotonic_ns()}", prompt))
    return made


@contextmanager
def counting(scheduler: Any, result: Result) -> Iterator[None]:
    """Count preemptions; at the first one also the requests, as the scheduler runs ahead of the outputs where async."""
    stock = scheduler._preempt_request

    def preempt(request: Any, *args: Any, **options: Any) -> Any:
        if not result.preemptions:
            result.count([*scheduler.running, request])
        result.preemptions += 1
        return stock(request, *args, **options)

    scheduler._preempt_request = preempt
    try:
        yield
    finally:
        del scheduler._preempt_request
