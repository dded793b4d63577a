"""The demo's steps: calibrate, plan, and measure one arm. Each leaves its files and its log in the output folder.

Owns the commands and the load. Does not know the order of the arms, nor what is made of their figures.
"""

import os
from collections.abc import Callable
from pathlib import Path

from calibrate.datasets import Dataset, open_dataset
from calibrate.datasets.splits import MEASURING
from profiles.files import note_written
from profiles.head_profile import HeadProfile
from profiles.planning.savings import kv_bytes_baseline, kv_bytes_per_token
from profiles.planning.summary import USUAL_TEXT_TOKENS
from profiles.pruning_plan import PruningPlan
from profiles.store import load_plan, load_profile
from profiles.treatments import TREATMENTS
from vhserve.child_processes import VHSERVE, free_port, run_step, serving
from vhserve.demo.arms import DemoArm
from vhserve.demo.options import DemoOptions
from vhserve.demo.results import DemoArmResult
from vhserve.devices import BLOCK_SIZES, serving_device
from vhserve.evaluation.arms import ask_arm
from vhserve.evaluation.client import RequestLimits
from vhserve.evaluation.errors import PlanMismatch
from vhserve.evaluation.latency import LatencyFigures, LatencyLoad, measure
from vhserve.evaluation.results import Server
from vhserve.evaluation.server import identify
from vhserve.evaluation.server_metrics import kv_capacity, metrics_text

SERVED_NAME = "demo"
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TEXT_TOKENS = 368  # question and reply, both of which are short
_STEP_LIMIT = 600.0
"""Seconds that calibrating or planning may take."""


def process_environment(options: DemoOptions) -> dict[str, str]:
    """The environment of every process: nothing is fetched, nothing is reported, the KV cache has a fixed size."""
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib),  # on CPUs stronger than the flag
    }
    return {**os.environ, **fixed}


def open_samples(options: DemoOptions) -> Dataset:
    """Open the held-out samples, the same for every arm."""
    return open_dataset("synthetic", samples=options.samples, seed=options.seed, split=MEASURING)


def calibrate(options: DemoOptions, show: Callable[[str], None]) -> HeadProfile:
    """Score the model's heads; writes `profile.json`, and shows its progress, line by line."""
    path = options.out / "profile.json"
    command = (
        *(*VHSERVE, "calibrate", "--model", options.model, "--dataset", "synthetic"),
        *("--samples", str(options.calibration_samples), "--seed", str(options.seed)),
        *("--effects", "--out", str(path), "--restart"),
    )
    run_step("calibrate", command, options.out / "calibrate.log", process_environment(options), _STEP_LIMIT, show)
    note_written(path)
    return load_profile(path)


def plan(options: DemoOptions, arm: DemoArm) -> Path | None:
    """Make an arm's plan; writes `plan-<arm>.json`. `None` for an arm that serves the model as it is."""
    if arm.plan is None:
        return None
    path = options.out / f"plan-{arm.name}.json"
    command = (*VHSERVE, "plan", str(options.out / "profile.json"), *arm.plan, "--out", str(path))
    run_step(
        f"plan {arm.name}", command, options.out / f"plan-{arm.name}.log", process_environment(options), _STEP_LIMIT
    )
    note_written(path)
    return path


def measure_arm(options: DemoOptions, arm: DemoArm, plan_path: Path | None, profile: HeadProfile) -> DemoArmResult:
    """Serve an arm, measure accuracy and latency, read its KV cache's size, and end the server."""
    served = None if plan_path is None else load_plan(plan_path)
    port = free_port()
    log = options.out / f"serve-{arm.name}.log"
    command = serve_command(options, plan_path, port, profile.geometry.image_tokens)
    with serving(arm.name, command, port, log, process_environment(options), options.start_limit) as startup:
        server = identify(f"http://127.0.0.1:{port}/v1", SERVED_NAME, "none")
        _check_plan(server, served, arm, log)
        # Every answer of the synthetic dataset is one token.
        limits = RequestLimits(concurrency=max(options.concurrency), max_tokens=1)
        asked = ask_arm(arm.name, server, open_samples(options), limits, "none")
        latency = [_latency(options, server, concurrency) for concurrency in options.concurrency]
        capacity = kv_capacity(metrics_text(server.base_url))
    reported = capacity.bytes_per_token.get("baseline" if served is None else "pruned")
    usual = USUAL_TEXT_TOKENS + profile.geometry.image_tokens
    heads = PruningPlan.unpruned(profile.model, profile.geometry) if served is None else served
    return DemoArmResult(
        name=arm.name,
        about=arm.about,
        plan=None if plan_path is None else plan_path.name,
        heads={treatment: len(heads.heads(treatment)) for treatment in TREATMENTS},
        startup_seconds=startup,
        kv_bytes_per_token=_planned_bytes(options, served, profile) if reported is None else reported,
        kv_bytes_source="plan" if reported is None else "server",
        capacity_tokens=capacity.tokens,
        capacity_image_prompts=capacity.prompts.get("image", capacity.prompts_of(usual)),
        accuracy=asked.arm,
        latency=latency,
    )


def serve_command(options: DemoOptions, plan_path: Path | None, port: int, image_tokens: int) -> tuple[str, ...]:
    """The command line of an arm's server, loopback only.

    Without compilation: it would take longer than all that is measured, and all arms do without it alike. The one
    without a plan has the KV blocks of the others.
    """
    return (
        *(*VHSERVE, "serve", options.model, *(() if plan_path is None else ("--plan", str(plan_path)))),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", SERVED_NAME),
        *(
            "--dtype",
            options.dtype,
            "--max-model-len",
            str(image_tokens + _TEXT_TOKENS),
            "--max-num-seqs",
            "64",
            "--enforce-eager",
        ),
        *("--block-size", str(BLOCK_SIZES[serving_device()])),
        *("--kv-cache-memory-bytes", str(options.kv_cache_gib << 30)),
    )


def _check_plan(server: Server, served: PruningPlan | None, arm: DemoArm, log: Path) -> None:
    expected = None if served is None else served.digest
    if expected is not None and server.plan_digest != expected:
        raise PlanMismatch(
            f"server {arm.name} reports plan {server.plan_digest}", expected=f"{expected}", fix=f"read its log {log}"
        )


def _latency(options: DemoOptions, server: Server, concurrency: int) -> LatencyFigures:
    load = LatencyLoad(
        concurrency=concurrency,
        requests=max(options.requests, 4 * concurrency),
        warm_up=2 * concurrency,
        output_tokens=options.output_tokens,
        seed=options.seed,
    )
    return measure(server, load)


def _planned_bytes(options: DemoOptions, served: PruningPlan | None, profile: HeadProfile) -> int:
    size = _DTYPE_BYTES[options.dtype]
    return kv_bytes_baseline(profile.geometry, size) if served is None else kv_bytes_per_token(served, size)
