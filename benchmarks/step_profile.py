"""Where the time of prefills and decode steps goes, kernel by kernel, with torch's profiler inside an arm's process.

On a GPU kernels are timed by the device, inside CUDA graphs as well; on a CPU operations of torch by their own time,
without that of operations that they call, on the wall's clock: it means something on an idle machine only. Does not
know kinds of kernels, nor which arm it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.workloads import Result, counting_preemptions, prompts, sampling, scheduler_of

WARM_STEPS: Final = 4
"""Steps of replies before any is measured."""

PATIENCE: Final = 40
"""Steps in which a prompt is to be computed, or it does not fit."""


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel or operation together.

    Attributes
    ----------
    seconds
        On the device, or of the operation's own on a CPU.
    """

    name: str
    calls: int
    seconds: float


@dataclass(frozen=True)
class Profiled:
    """Steps that were looked at.

    Attributes
    ----------
    wall
        Seconds of as many equal steps without the profiler; of the very steps with it where they come once (prefill).
    tokens
        Tokens of prompts that the steps computed; 0 of decode steps.
    """

    steps: int
    wall: float
    tokens: int
    device: bool
    kernels: list[Kernel]


@dataclass(frozen=True)
class ProfilePrefill:
    """All steps that compute the prompts of so many requests, each with one token of a reply."""

    requests: int
    images: int
    text_tokens: int
    seed: int = 0

    def run(self, engine: Any) -> Profiled:
        core = engine.llm_engine
        asked = prompts(self.requests, self.images, self.text_tokens, self.seed)
        for name, prompt in asked:
            core.add_request(name, prompt, sampling(1))
        done = {"steps": 0, "tokens": 0}

        def work() -> None:
            while core.has_unfinished_requests():
                done["steps"] += 1
                done["tokens"] += sum(len(one.prompt_token_ids) for one in core.step() if one.finished)

        wall, kernels, device = profiled(work)
        return Profiled(done["steps"], wall, done["tokens"], device, kernels)


@dataclass(frozen=True)
class ProfileDecode:
    """`steps` steps in which each of so many requests gets one more token of its reply, and none is a prompt's.

    Where so many requests do not fit in the KV cache, there are no steps in what is returned.
    """

    requests: int
    steps: int
    images: int
    text_tokens: int
    seed: int = 0

    @property
    def reply_tokens(self) -> int:
        """Longest reply: prompts are computed one after another, and those before have replies meanwhile."""
        return 2 * self.steps + WARM_STEPS + PATIENCE * (self.requests + 1)

    def run(self, engine: Any) -> Profiled:
        core, preempted = engine.llm_engine, Result(0.0, 0)
        asked = prompts(self.requests, self.images, self.text_tokens, self.seed)
        with counting_preemptions(scheduler_of(engine), preempted):
            got = self._steps(core, asked) if self._begin(core, asked) else None
        core.abort_request([name for name, _ in asked])
        while core.has_unfinished_requests():
            core.step()
        return Profiled(0, 0.0, 0, False, []) if got is None or preempted.preemptions else got

    def _begin(self, core: Any, asked: list[tuple[str, dict[str, Any]]]) -> bool:
        """Compute the prompts one after another, so that no step afterwards has a part of one; whether all fit."""
        for name, prompt in asked:
            core.add_request(name, prompt, sampling(self.reply_tokens))
            answered = False
            for _ in range(PATIENCE):
                answered = answered or any(output.request_id == name for output in core.step())
                if answered:
                    break
            if not answered:
                return False
        return True

    def _steps(self, core: Any, asked: list[tuple[str, dict[str, Any]]]) -> Profiled:
        def steps(number: int) -> None:
            for _ in range(number):
                if len(core.step()) != len(asked):
                    raise RuntimeError(f"a step did not answer all of {len(asked)} requests")

        for _ in range(WARM_STEPS):
            core.step()
        started = time.perf_counter()
        steps(self.steps)
        wall = time.perf_counter() - started
        _, kernels, device = profiled(lambda: steps(self.steps))
        return Profiled(self.steps, wall, 0, device, kernels)


def profiled(work: Callable[[], object]) -> tuple[float, list[Kernel], bool]:
    """Seconds of some work, its kernels, and whether they are a device's."""
    import torch
    from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch does not list it
    from torch.profiler import ProfilerActivity, profile

    device = torch.cuda.is_available()
    # Not both on a GPU: the host's side of a step is not asked for, and recording it slows the step down.
    activity = ProfilerActivity.CUDA if device else ProfilerActivity.CPU
    wanted = DeviceType.CUDA if device else DeviceType.CPU
    with profile(activities=[activity]) as seen:
        started = time.perf_counter()
        work()
        if device:
            torch.cuda.synchronize()
        wall = time.perf_counter() - started
    kernels = [
        Kernel(one.key, one.count, (one.self_device_time_total if device else one.self_cpu_time_total) / 1e6)
        for one in seen.key_averages()
        if one.device_type == wanted and not one.is_user_annotation
    ]
    return wall, [kernel for kernel in kernels if kernel.seconds > 0], device
