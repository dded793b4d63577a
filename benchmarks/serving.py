"""Plans against stock vLLM on the same KV cache memory: `python -m benchmarks.serving --help`.

Each arm is a process with an engine of dummy weights; the arms take turns on the same requests, several times, and
medians are compared: at the same number of requests at once, and each arm at its own best one. Writes JSON, after every
turn, and a plot. Does not know how an engine is looked at (`arm`) nor how results are shown (`serving_report`).
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import dummy_model, offline, serving_report, sizes  # noqa: E402
from benchmarks.arm import Arm, Workload  # noqa: E402
from benchmarks.arm_names import ArmName  # noqa: E402
from benchmarks.serving_options import parser  # noqa: E402
from profiles.planning.savings import ideal_concurrency  # noqa: E402
from profiles.provenance import git_commit  # noqa: E402
from profiles.pruning_plan import PruningPlan  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    import torch

    args = parser(__doc__).parse_args(argv)
    geometry = sizes.geometry(args)
    with tempfile.TemporaryDirectory(prefix="vhserve-bench-") as scratch:
        folder = Path(scratch)
        model = dummy_model.write(folder / "model", geometry)
        environment = offline.environment(folder / "plugin")
        if args.threads:
            environment |= {"OMP_NUM_THREADS": str(args.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        arms: dict[str, Arm] = {}
        try:
            for name in args.arms:
                arms[name.text] = start(name, args, geometry, model, environment, folder)
                if torch.cuda.is_available():
                    arms[name.text].wait()  # an engine that starts beside another measures the other's memory
            for report in measure(args, geometry, arms):
                write(report, args)  # after each turn: a sweep may take hours
        finally:
            for arm in arms.values():
                arm.close()
    serving_report.plot(report, args.out.with_suffix(".png"))
    print(serving_report.tables(report))
    return 0


def write(report: dict[str, Any], args: argparse.Namespace) -> None:
    report["command"] = vars(args) | {"out": str(args.out), "arms": [name.text for name in args.arms]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def start(
    name: ArmName,
    args: argparse.Namespace,
    geometry: dummy_model.Geometry,
    model: Path,
    environment: dict[str, str],
    folder: Path,
) -> Arm:
    import torch

    longest = args.text_tokens + max(args.images) * geometry.image_tokens + max(args.output) + 32
    settings: dict[str, Any] = {
        "model": str(model),
        "load_format": "dummy",
        "dtype": args.dtype,
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
        settings["gpu_memory_utilization"] = args.gpu_memory
    else:
        settings["block_size"] = 32
    for setting in ("block_size", "max_num_batched_tokens", "attention_backend"):
        if getattr(args, setting):
            settings[setting] = getattr(args, setting)
    if name.fp8:
        settings["kv_cache_dtype"] = "fp8"
    if name.gather:
        settings["surgery"] = "gather"
    plan = plan_of(name, geometry)
    given = None if plan is None else plan.model_dump(mode="json")
    print(f"starting {name.text} ...", flush=True)
    return Arm(name.text, settings, given, environment, folder / f"{len(list(folder.iterdir()))}.log")


def plan_of(name: ArmName, geometry: dummy_model.Geometry) -> PruningPlan | None:
    """The plan of an arm; `None` of stock."""
    if name.is_stock:
        return None
    return dummy_model.plan(geometry, name.shares, removed=name.removed, exit_layer=name.exit_layer)


def measure(args: argparse.Namespace, geometry: dummy_model.Geometry, arms: dict[str, Arm]) -> Iterator[dict[str, Any]]:
    """The report as it grows, after each turn."""
    begun = time.monotonic()
    report: dict[str, Any] = {
        "geometry": asdict(geometry),
        "machine": {"platform": platform.platform(), "python": platform.python_version(), **versions()},
        "commit": git_commit(),
        "arms": {name: arm.facts for name, arm in arms.items()},
        "references": [name.text for name in args.arms if name.is_stock or name.is_text_only],
        "capacity": [],
        "turns": [],
        "runs": [],
    }
    for name in args.arms:
        plan = plan_of(name, geometry) or dummy_model.plan(geometry)
        ideal = ideal_concurrency(plan, args.text_tokens, geometry.image_tokens * args.images[0])
        report["arms"][name.text]["ideal_concurrency"] = ideal
        arms[name.text].run(Workload(2, 2, max(args.images), args.text_tokens, 4, seed=999))  # warm up
    yield report
    for images, output, name in ((i, o, n) for i in args.images for o in args.output for n in arms if args.capacity):
        got = arms[name].run(Workload(args.max_num_seqs, 0, images, args.text_tokens, output, capacity=True))
        report["capacity"].append({"arm": name, "images": images, "output": output, **asdict(got)})
        print(serving_report.describe_capacity(report["capacity"][-1]), flush=True)
        yield report
    for repeat, images, output in ((r, i, o) for r in range(args.repeats) for i in args.images for o in args.output):
        best: dict[str, float] = dict.fromkeys(arms, 0.0)
        for concurrency in args.concurrency:
            for name in list(best) if repeat % 2 == 0 else list(reversed(best)):
                if time.monotonic() - begun > 60 * args.minutes:
                    return
                requests = max(2, 2 * concurrency) if args.requests is None else args.requests
                asked = Workload(
                    requests, concurrency, images, args.text_tokens, output, seed=repeat, cpu_time=args.cpu_time
                )
                got = arms[name].run(asked)
                asked_for = {"images": images, "output": output, "concurrency": concurrency, "requests": requests}
                report["turns"].append({"arm": name, "repeat": repeat, **asked_for, **asdict(got)})
                report["runs"] = serving_report.summaries(report["turns"], report["references"])
                print(serving_report.describe_turn(report["turns"][-1]), flush=True)
                yield report
                best[name] = max(best[name], got.tokens_per_second)
                if got.tokens_per_second < args.give_up * best[name]:
                    del best[name]


def versions() -> dict[str, str]:
    import torch
    import vllm

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return {"vllm": vllm.__version__, "torch": torch.__version__, "device": device}


if __name__ == "__main__":
    raise SystemExit(main())
