"""The engine of an arm: its plan, its vLLM settings, and its start as a process of its own.

Does not know what is measured.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import dummy_model, offline
from benchmarks.arm import Arm
from benchmarks.arm_names import ArmName
from profiles.pruning_plan import PruningPlan


@contextmanager
def running(args: argparse.Namespace, geometry: dummy_model.Geometry, folder: Path) -> Iterator[dict[str, Arm]]:
    """The arms of `args.arms` by name, all up; killed, whatever they do, where the block ends.

    They start side by side, on a GPU too: each is given the size of its KV cache, so that none measures what memory is
    free. Their logs are left beside `args.out`, however they end.

    Parameters
    ----------
    args
        With the flags of `serving_options.add_engine_flags`, `images`, `output` (both lists) and `text_tokens` of the
        longest prompt and reply, and `out`.
    """
    model = dummy_model.write(folder / "model", geometry)
    environment = offline.environment(folder / "plugin")
    if args.threads:
        environment |= {"OMP_NUM_THREADS": str(args.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    arms: dict[str, Arm] = {}
    try:
        begun = time.monotonic()
        for number, name in enumerate(args.arms):
            print(f"starting {name.text} ...", flush=True)
            arms[name.text] = start(name, args, geometry, model, environment, folder / f"{number}.log")
        for arm in arms.values():
            arm.wait()
            print(f"{arm.name} is up after {time.monotonic() - begun:.0f} s", flush=True)
        yield arms
    finally:
        for number, arm in enumerate(arms.values()):
            arm.kill()
            args.out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(arm.log, args.out.with_name(f"{args.out.name}_arm{number}.log"))


def start(
    name: ArmName,
    args: argparse.Namespace,
    geometry: dummy_model.Geometry,
    model: Path,
    environment: dict[str, str],
    log: Path,
) -> Arm:
    """Start an arm, and don't wait for its engine."""
    plan = plan_of(name, geometry)
    given = None if plan is None else plan.model_dump(mode="json")
    return Arm(name.text, settings(name, args, geometry, model), given, environment, log)


def settings(name: ArmName, args: argparse.Namespace, geometry: dummy_model.Geometry, model: Path) -> dict[str, Any]:
    """Keywords of `vllm.LLM`, `surgery` and `admission` of an arm; `args` are of `serving_options.add_engine_flags`."""
    import torch

    longest = args.text_tokens + max(args.images) * geometry.image_tokens + max(args.output) + 32
    made: dict[str, Any] = {
        "model": str(model),
        "load_format": "dummy",
        "dtype": args.dtype,
        "kv_cache_dtype": name.cache,
        "enable_prefix_caching": False,
        "max_model_len": args.max_model_len or longest,
        "max_num_seqs": args.max_num_seqs,
        "kv_cache_memory_bytes": int(args.kv_gib * 2**30),
        "mm_processor_cache_gb": 0,
        "watermark": args.watermark,
        "limit_mm_per_prompt": {"image": max(1, *args.images)},
        "disable_log_stats": True,
        "enforce_eager": args.eager or not torch.cuda.is_available(),
    }
    if torch.cuda.is_available():
        made["gpu_memory_utilization"] = args.gpu_memory
    else:
        made["block_size"] = 32
    for setting in ("block_size", "max_num_batched_tokens", "attention_backend"):
        if getattr(args, setting):
            made[setting] = getattr(args, setting)
    if name.gather:
        made["surgery"] = "gather"
    if name.stock_admission:
        made["admission"] = "stock"
    return made


def plan_of(name: ArmName, geometry: dummy_model.Geometry) -> PruningPlan | None:
    """The plan of an arm; `None` of stock."""
    if name.is_stock:
        return None
    return dummy_model.plan(geometry, name.shares, removed=name.removed, exit_layer=name.exit_layer)
