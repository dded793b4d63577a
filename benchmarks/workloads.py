"""Requests that an arm answers: so many at once, or prompts alone; and what that took.

Runs in the arm's process, on an engine whose scheduler can be looked at. Does not know which arm it is.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """What a workload took. Times in seconds.

    Attributes
    ----------
    first_token
        Of each request, from when it was sent to its first token.
    per_token
        Of each request, for each token of its reply but the first.
    prompt_tokens
        Of one request.
    most_held
        Greatest number of requests at once whose prompt was computed and whose blocks were held, by the scheduler's
        own book, which runs ahead of outputs where scheduling is async.
    """

    seconds: float
    output_tokens: int
    first_token: list[float] = field(default_factory=list)
    per_token: list[float] = field(default_factory=list)
    preemptions: int = 0
    prompt_tokens: int = 0
    steps: int = 0
    most_held: int = 0

    @property
    def tokens_per_second(self) -> float:
        return self.output_tokens / self.seconds


@dataclass(frozen=True)
class Workload:
    """Requests that are sent so that at most `concurrency` are in the engine at once.

    With `cpu_time` times are of this process's CPU and not of the wall's clock, so that what else a machine does counts
    less; they mean something where an engine has one thread and waits for no device.
    """

    requests: int
    concurrency: int
    images: int
    text_tokens: int
    output_tokens: int
    seed: int = 0
    cpu_time: bool = False

    def run(self, engine: Any) -> Result:
        """Run it to its end."""
        core, scheduler = engine.llm_engine, scheduler_of(engine)
        clock = clock_of(self.cpu_time)
        wanted = sampling(self.output_tokens)
        waiting = prompts(self.requests, self.images, self.text_tokens, self.seed)
        result = Result(0.0, 0)
        sent: dict[str, float] = {}
        first: dict[str, float] = {}
        started = clock()
        with counting_preemptions(scheduler, result):
            while waiting or core.has_unfinished_requests():
                while waiting and len(sent) < self.concurrency:
                    name, prompt = waiting.pop(0)
                    core.add_request(name, prompt, wanted)
                    sent[name] = clock()
                outputs = core.step()
                now = clock()
                result.steps += 1
                result.most_held = max(result.most_held, held(scheduler))
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
        result.seconds = clock() - started
        return result


@dataclass(frozen=True)
class PrefillResult:
    """How long prompts took.

    Attributes
    ----------
    prompt_tokens
        Of all requests.
    """

    seconds: float
    prompt_tokens: int
    steps: int

    @property
    def tokens_per_second(self) -> float:
        return self.prompt_tokens / self.seconds


@dataclass(frozen=True)
class Prefill:
    """Prompts that are computed, in the steps that the engine makes of them, with one token of a reply.

    The clock runs from when all are in the engine, so that images are prepared before, to when all are answered. What
    a step does counts, the vision encoder included, which is the same for every arm.
    """

    requests: int
    images: int
    text_tokens: int
    seed: int = 0
    cpu_time: bool = False

    def run(self, engine: Any) -> PrefillResult:
        """Run it to its end."""
        core, clock = engine.llm_engine, clock_of(self.cpu_time)
        wanted = sampling(1)
        for name, prompt in prompts(self.requests, self.images, self.text_tokens, self.seed):
            core.add_request(name, prompt, wanted)
        started, tokens, steps = clock(), 0, 0
        while core.has_unfinished_requests():
            outputs = core.step()
            steps += 1
            tokens += sum(len(output.prompt_token_ids) for output in outputs if output.finished)
        return PrefillResult(clock() - started, tokens, steps)


def scheduler_of(engine: Any) -> Any:
    """The scheduler of an engine in this process."""
    return engine.llm_engine.engine_core.engine_core.scheduler


def clock_of(cpu_time: bool) -> Callable[[], float]:
    return time.process_time if cpu_time else time.perf_counter


def sampling(tokens: int) -> Any:
    """Greedy replies of exactly so many tokens."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


def prompts(requests: int, images: int, text_tokens: int, seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Request ids and prompts: the images of one seed are always the same, and no two alike."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    words = " ".join(f"word{number}" for number in rng.integers(0, 995, max(1, text_tokens - 1)))
    head, tail = words[: len(words) // 4].rsplit(" ", 1)[0], words[len(words) // 4 :].split(" ", 1)[-1]
    made = []
    for number in range(requests):
        prompt: dict[str, Any] = {"prompt": f"<s> {head} {'<image> ' * images} {tail}"}
        if images:
            pictures = rng.integers(0, 256, (images, 64, 64, 3), dtype=np.uint8)
            prompt["multi_modal_data"] = {"image": [Image.fromarray(picture) for picture in pictures]}
        made.append((f"{seed}-{number}-{time.monotonic_ns()}", prompt))
    return made


def held(scheduler: Any) -> int:
    """Running requests whose prompt is computed.

    Not those that wait for the encoder with the text before their image computed, nor preempted ones, which hold none.
    """
    return sum(one.num_computed_tokens >= one.num_prompt_tokens for one in scheduler.running)


@contextmanager
def counting_preemptions(scheduler: Any, result: Result) -> Iterator[None]:
    stock = scheduler._preempt_request

    def preempt(request: Any, *args: Any, **options: Any) -> Any:
        result.preemptions += 1
        return stock(request, *args, **options)

    scheduler._preempt_request = preempt
    try:
        yield
    finally:
        del scheduler._preempt_request
