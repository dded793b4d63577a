"""A process of its own that starts vLLM engines one after another, asks them, and answers over a pipe.

vLLM's imports take longer than an engine does, so all tests share one host; and vLLM's warnings stay out of pytest's.
`EngineHost` is the tests' side, `main` the host's. Knows nothing of oracles.
"""

import functools
import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from engine_patches import PATCHES
from engine_prompts import IMAGE_TOKEN, EnginePrompt, request

from benchmarks import connected_process
from vhserve.engine.checks.admission_choice import Admission
from vhserve.engine.checks.surgery_choice import AskedSurgery

BLOCK = 32
KV_CACHE_BYTES = 128 << 20
"""Some 500 blocks of the largest tiny model: few enough to be allocated quickly, enough to compare capacities."""


@dataclass(frozen=True)
class Round:
    """Prompts that are asked together; `reset` forgets the prefix cache before."""

    prompts: tuple[EnginePrompt, ...]
    tokens: int = 3
    reset: bool = True


@dataclass(frozen=True)
class Job:
    """One engine and what to ask it.

    Attributes
    ----------
    plan
        Canonical content of a plan; None for stock vLLM.
    settings
        Keywords of `vllm.LLM`.
    patches
        Names of functions in `engine_patches.PATCHES`, in force while the engine lives.
    probe
        `module:function` to call with the engine after the rounds; what it returns becomes `EngineOutcome.probed`.
    surgery, admission
        As of `vhserve serve`.
    """

    model: str
    plan: dict[str, Any] | None
    rounds: tuple[Round, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    patches: tuple[str, ...] = ()
    probe: str = ""
    surgery: AskedSurgery = "auto"
    admission: Admission = "reckon"


@dataclass(frozen=True)
class Call:
    """A function to call in the host, by name, without an engine."""

    name: str
    arguments: tuple[Any, ...]


def call(function: Callable[..., Any], *arguments: Any) -> Call:
    """A call of a module-level function of a test file; what it returns or raises is in the outcome."""
    return Call(f"{function.__module__}.{function.__qualname__}", arguments)


@dataclass(frozen=True)
class Answer:
    """Token ids of prompt and reply, and for each token of the reply the 20 likeliest ones' log-probabilities."""

    prompt_ids: list[int]
    cached: int
    reply_ids: list[int]
    log_probs: list[dict[int, float]]


@dataclass(frozen=True)
class EngineOutcome:
    """What came of a job.

    Attributes
    ----------
    kv_bytes
        Bytes of the KV cache that were allocated, by the name of the layer.
    kv_tokens
        What vLLM reports as the size of its KV cache.
    weights
        With patch `captured`: parameters as they were loaded, by vLLM's names.
    failure
        Class and text of what was raised instead of starting, or None.
    """

    answers: list[list[Answer]] = field(default_factory=list)
    kv_bytes: dict[str, int] = field(default_factory=dict)
    blocks: int = 0
    kv_tokens: int = 0
    config_hash: str = ""
    preemptions: int = 0
    weights: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    probed: Any = None


class EngineHost:
    """Starts the host, and runs jobs on it one at a time. `module` is whose `main` runs there."""

    def __init__(self, folder: Path, environment: dict[str, str], module: str = "engine_host") -> None:
        self.log = folder / "engine-host.log"
        self.done: list[tuple[Job, EngineOutcome]] = []
        self.sent = 0
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        self.process, self.connection = connected_process.start(module, {**environment, "PYTHONPATH": paths}, self.log)

    def run(self, job: Job) -> EngineOutcome:
        """Start the engine, ask it, end it; an equal job is not done again."""
        for earlier, outcome in self.done:
            if earlier == job:
                return outcome
        self.done.append((job, self.do(job)))
        return self.done[-1][1]

    def do(self, job: "Job | Call", limit: float | None = None) -> EngineOutcome:
        """Run a job; a failure of the host itself fails the test with the end of its log.

        Parameters
        ----------
        limit
            Seconds after which the host is ended, if it has not answered by then.
        """
        self.sent += 1
        try:
            self.connection.send((self.sent, job))
            if not self.connection.poll(limit):
                self.kill()
                raise AssertionError(f"no answer in {limit:.0f} s to {job}:\n{self._end_of_log()}")
            number, outcome = self.connection.recv()
            while number != self.sent:  # an earlier job, whose test ran out of time
                number, outcome = self.connection.recv()
        except connected_process.ENDED as error:
            raise AssertionError(f"the engine host died on {job}:\n{self._end_of_log()}") from error
        assert isinstance(outcome, EngineOutcome)
        return outcome

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    def close(self) -> None:
        self.connection.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it whatever it does; who waits for an answer gets the error of a dead host."""
        self.process.kill()
        self.process.wait()


# --- the host's side ---


def main(number: int) -> None:
    """Run jobs until the tests hang up; `number` is of `connected_process.parent`."""
    from profiles.torchvision_import import ensure_torchvision

    connection = connected_process.parent(number)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # in whole GiB, and stronger than a job's settings
    ensure_torchvision()
    from vllm.platforms.cpu import CpuPlatform

    collect_garbage = collecting_what_is_new()
    # Looks through all modules for kernels to replace, and would replace the replacements for every further engine.
    once = functools.cache(CpuPlatform.register_triton_kernel_overrides)
    CpuPlatform.register_triton_kernel_overrides = staticmethod(once)
    while True:
        try:
            number, job = connection.recv()
        except EOFError:
            return
        started = time.monotonic()
        collect_garbage()
        try:
            outcome = run(job) if isinstance(job, Job) else called(job)
        except Exception as error:  # the host lives on for the next test
            outcome = EngineOutcome(failure=(type(error).__name__, traceback.format_exc()))
        print(f"=== {time.monotonic() - started:.1f} s for {job}", flush=True)
        connection.send((number, outcome))


def collecting_what_is_new() -> Callable[[], None]:
    """From each call of what is returned, the garbage collector looks only at objects that are younger than the call.

    vLLM unfreezes and collects everything eight times an engine. Over all that its imports leave behind, that takes
    longer than the engine itself.
    """
    freeze = gc.freeze

    def collect() -> None:
        gc.collect()
        freeze()

    gc.freeze = gc.unfreeze = lambda: None
    return collect


def called(job: Call) -> EngineOutcome:
    try:
        return EngineOutcome(probed=resolve_name(job.name)(*job.arguments))
    except Exception as error:
        return EngineOutcome(failure=(type(error).__name__, str(error)))


def run(job: Job) -> EngineOutcome:
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from profiles.errors import UserError
    from profiles.store import plan_from_dict
    from vhserve.server.serving import engine_overrides

    settings: dict[str, Any] = {
        "dtype": "float32",
        "block_size": BLOCK,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "enforce_eager": True,
        "disable_log_stats": False,
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
    }
    captured: dict[str, Any] = {}
    with ExitStack() as stack:
        for patch in job.patches:
            stack.enter_context(PATCHES[patch](captured))
        try:
            if job.plan is not None:
                settings |= engine_overrides(plan_from_dict(job.plan), job.surgery, job.admission)
            engine = LLM(model=job.model, **settings | job.settings)
        except (UserError, ValueError) as error:
            cleanup_dist_env_and_memory()
            return EngineOutcome(failure=(type(error).__name__, str(error)))
        try:
            answers = [ask(engine, one) for one in job.rounds]
            probed = resolve_name(job.probe)(engine) if job.probe else None
            return EngineOutcome(
                answers=answers, **facts_of(engine), weights=captured.get("weights", {}), probed=probed
            )
        finally:
            engine.llm_engine.engine_core.shutdown()
            del engine
            cleanup_dist_env_and_memory()


def ask(engine: Any, asked: Round, **options: Any) -> list[Answer]:
    """Answers to a round's prompts; `options` are of `LLM.generate`."""
    from vllm import SamplingParams

    if asked.reset:
        assert engine.reset_prefix_cache()
    wanted = SamplingParams(temperature=0, max_tokens=asked.tokens, logprobs=20, ignore_eos=True)
    if engine.llm_engine.vllm_config.speculative_config is None:  # the two don't go together
        wanted.logit_bias = {IMAGE_TOKEN: -100.0}
    requests = [request(prompt) for prompt in asked.prompts]
    return [
        Answer(
            prompt_ids=list(reply.prompt_token_ids),
            cached=reply.num_cached_tokens or 0,
            reply_ids=list(reply.outputs[0].token_ids),
            log_probs=[{token: one.logprob for token, one in row.items()} for row in reply.outputs[0].logprobs],
        )
        for reply in engine.generate(requests, wanted, use_tqdm=False, **options)
    ]


def facts_of(engine: Any) -> dict[str, Any]:
    def tensors(worker: Any) -> dict[str, int]:
        layers = worker.vllm_config.compilation_config.static_forward_context
        caches = {
            name: layer.kv_cache for name, layer in layers.items() if hasattr(layer, "kv_cache")
        }  # experts have none
        return {name: cache.numel() * cache.element_size() for name, cache in caches.items()}

    def backends(worker: Any) -> set[str]:
        layers = worker.vllm_config.compilation_config.static_forward_context.values()
        return {layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")}

    config = engine.llm_engine.vllm_config
    scheduler = engine.llm_engine.engine_core.engine_core.scheduler
    values = {metric.name: metric for metric in engine.get_metrics()}
    return {
        "kv_bytes": {name: size for name, size in engine.collective_rpc(tensors)[0].items() if size},
        "blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
        "kv_tokens": int(values["vllm:cache_config_info"].labels.get("kv_cache_size_tokens", 0))
        if "vllm:cache_config_info" in values
        else 0,
        "config_hash": config.compute_hash(),
        "preemptions": values["vllm:num_preemptions"].value,
        "facts": {
            "async": config.scheduler_config.async_scheduling,
            "compiled": config.compilation_config.mode,
            "runner_v2": config.use_v2_model_runner,
            "backends": engine.collective_rpc(backends)[0],
            **{
                fact: getattr(values.get(f"vllm:spec_decode_num_{name}_tokens"), "value", 0)
                for fact, name in (("drafted", "draft"), ("accepted", "accepted"))
            },
            "attributes": {k: str(v) for k, v in vars(config.cache_config).items()},
        },
    }
