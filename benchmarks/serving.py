"""Text-only heads against stock vLLM on the same KV cache memory: `python -m benchmarks.serving --help`.

Each arm is a process with an engine of dummy weights; the arms take turns on the same requests, several times, and
medians are compared. Writes JSON and a plot. Does not know how an engine is looked at (`arm`).
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import dummy_model, offline  # noqa: E402
from benchmarks.arm import Arm, Result, Workload  # noqa: E402
from profiles.planning.savings import ideal_concurrency  # noqa: E402
from profiles.pruning_plan import PruningPlan  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    geometry = dummy_model.geometry_of(args.model)
    if args.image_tokens:
        geometry = replace(geometry, image_tokens=args.image_tokens)
    if args.layers:
        geometry = replace(geometry, layers=args.layers)
    with tempfile.TemporaryDirectory(prefix="vhserve-bench-") as scratch:
        folder = Path(scratch)
        model = dummy_model.write(folder / "model", geometry)
        environment = offline.environment(folder / "plugin")
        arms = {name: start(name, args, geometry, model, environment, folder) for name in args.arms.split(",")}
        try:
            for report in measure(args, geometry, arms):
                write(report, args)  # after each cell: a sweep may take hours
        finally:
            for arm in arms.values():
                arm.close()
    plot(report, args.out.with_suffix(".png"))
    print_table(report)
    return 0


def write(report: dict[str, Any], args: argparse.Namespace) -> None:
    report["command"] = vars(args) | {"out": str(args.out)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    made.add_argument("--model", default="scaled-down", help="scaled-down, or an alias of `vhserve models`")
    made.add_argument("--layers", type=int, help="fewer layers than the model has")
    made.add_argument("--image-tokens", type=int, help="a square number; the model's own by default")
    made.add_argument(
        "--arms",
        default="stock,plan:0.25,plan:0.5,plan:0.75",
        help="comma list of stock, plan:SHARE of text-only heads, removed:HEADS of the last third of the layers; each "
        "with +fp8 for an FP8 KV cache",
    )
    made.add_argument("--concurrency", default="1,8,32", help="comma list")
    made.add_argument("--images", default="1", help="comma list of images in a prompt")
    made.add_argument("--output", default="64", help="comma list of tokens to generate")
    made.add_argument("--text-tokens", type=int, default=70)
    made.add_argument("--requests", type=int, help="of each run; twice the concurrency by default")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--kv-gib", type=float, default=0.5, help="KV cache of each arm")
    made.add_argument("--dtype", default="bfloat16")
    made.add_argument("--block-size", type=int, help="vLLM's default: 16 on GPUs; 32 on CPUs")
    made.add_argument("--max-model-len", type=int, help="the longest workload by default")
    made.add_argument("--max-num-seqs", type=int, default=128)
    made.add_argument("--max-num-batched-tokens", type=int)
    made.add_argument("--watermark", type=float, default=0.0, help="share of the KV cache kept free at admission")
    made.add_argument("--eager", action="store_true", help="neither torch.compile nor CUDA graphs")
    made.add_argument("--attention-backend", help="as vLLM calls it")
    made.add_argument("--gpu-memory", type=float, default=0.3, help="share of the GPU for each arm")
    made.add_argument("--capacity", action="store_true", help="also count requests before the first preemption")
    made.add_argument("--out", type=Path, default=Path("benchmark"), help="path without suffix")
    return made


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def start(
    name: str,
    args: argparse.Namespace,
    geometry: dummy_model.Geometry,
    model: Path,
    environment: dict[str, str],
    folder: Path,
) -> Arm:
    import torch

    _, *extras = name.split("+")
    longest = args.text_tokens + max(numbers(args.images)) * geometry.image_tokens + max(numbers(args.output)) + 32
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
        "limit_mm_per_prompt": {"image": max(1, *numbers(args.images))},
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
    if "fp8" in extras:
        settings["kv_cache_dtype"] = "fp8"
    plan = plan_of(name, geometry)
    given = None if plan is None else plan.model_dump(mode="json")
    print(f"starting {name} ...", flush=True)
    return Arm(name, settings, given, environment, folder / f"{name.replace(':', '-')}.log")


def plan_of(name: str, geometry: dummy_model.Geometry) -> PruningPlan | None:
    """The plan of an arm, by its name; `None` of stock."""
    kind, _, number = name.split("+")[0].partition(":")
    if kind == "plan":
        return dummy_model.plan(geometry, text_only=float(number or 0.75))
    if kind == "removed":
        return dummy_model.plan(geometry, removed=int(number or 100))
    return None


def measure(args: argparse.Namespace, geometry: dummy_model.Geometry, arms: dict[str, Arm]) -> Iterator[dict[str, Any]]:
    """The report as it grows, after each cell."""
    report: dict[str, Any] = {
        "geometry": asdict(geometry),
        "machine": {"platform": platform.platform(), "python": platform.python_version(), **versions()},
        "arms": {name: arm.facts for name, arm in arms.items()},
        "runs": [],
        "capacity": [],
    }
    for name, arm in arms.items():
        tokens = geometry.image_tokens * numbers(args.images)[0]
        plan = plan_of(name, geometry) or dummy_model.plan(geometry)
        ideal = ideal_concurrency(plan, args.text_tokens, tokens)
        report["arms"][name]["ideal_concurrency"] = ideal
        arm.run(Workload(2, 2, max(numbers(args.images)), args.text_tokens, 4, seed=999))  # warm up
    for images in numbers(args.images):
        for output in numbers(args.output):
            if args.capacity:
                for name, arm in arms.items():
                    asked = Workload(args.max_num_seqs, 0, images, args.text_tokens, output, capacity=True)
                    got = arm.run(asked)
                    report["capacity"].append({"arm": name, "images": images, "output": output, **asdict(got)})
                    print(f"{name}: {got.most_running} requests before the first preemption", flush=True)
            for concurrency in numbers(args.concurrency):
                requests = args.requests or max(2, 2 * concurrency)
                results: dict[str, list[Result]] = {name: [] for name in arms}
                for repeat in range(args.repeats):
                    order = list(arms) if repeat % 2 == 0 else list(reversed(arms))
                    for name in order:
                        asked = Workload(requests, concurrency, images, args.text_tokens, output, seed=repeat)
                        results[name].append(arms[name].run(asked))
                for name, got in results.items():
                    run = summary(name, images, output, concurrency, requests, got)
                    if "stock" in results:
                        run |= ratios(got, results["stock"])
                    report["runs"].append(run)
                    print(describe(run), flush=True)
                yield report


def ratios(results: list[Result], stock: list[Result]) -> dict[str, Any]:
    """Of this arm to stock vLLM: of medians, and the least and greatest of the single turns."""

    def compared(figure: Callable[[Result], float]) -> tuple[float, list[float]]:
        mine, theirs = [figure(one) for one in results], [figure(one) for one in stock]
        each = sorted(a / b for a, b in zip(mine, theirs, strict=True))
        return statistics.median(mine) / statistics.median(theirs), [each[0], each[-1]]

    made: dict[str, Any] = {}
    made["throughput_ratio"], made["throughput_ratio_range"] = compared(lambda one: one.tokens_per_second)
    if results[0].per_token:
        made["step_ratio"], made["step_ratio_range"] = compared(lambda one: statistics.median(one.per_token))
    return made


def summary(
    arm: str, images: int, output: int, concurrency: int, requests: int, results: list[Result]
) -> dict[str, Any]:
    """Medians over the repeats, and every repeat's throughput."""
    median = statistics.median
    return {
        "arm": arm,
        "images": images,
        "output": output,
        "concurrency": concurrency,
        "requests": requests,
        "prompt_tokens": results[0].prompt_tokens,
        "tokens_per_second": median(one.tokens_per_second for one in results),
        "each": [one.tokens_per_second for one in results],
        "first_token": median(median(one.first_token) for one in results),
        "per_token": median(median(one.per_token) for one in results) if results[0].per_token else None,
        "preemptions": median(one.preemptions for one in results),
        "most_running": max(one.most_running for one in results),
    }


def describe(run: dict[str, Any]) -> str:
    per_token = f"{1000 * run['per_token']:.1f} ms/token" if run["per_token"] else ""
    return (
        f"{run['arm']:>16}  images {run['images']}  output {run['output']}  concurrency {run['concurrency']:>3}: "
        f"{run['tokens_per_second']:8.2f} tokens/s  {per_token}  preemptions {run['preemptions']:g}"
    )


def print_table(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        line = describe(run)
        if "throughput_ratio" in run:
            low, high = run["throughput_ratio_range"]
            line += f"  {run['throughput_ratio']:.2f} x stock's throughput ({low:.2f} to {high:.2f})"
        if "step_ratio" in run:
            low, high = run["step_ratio_range"]
            line += f", {run['step_ratio']:.3f} x its time per token ({low:.3f} to {high:.3f})"
        print(line)


def versions() -> dict[str, str]:
    import torch
    import vllm

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    return {"vllm": vllm.__version__, "torch": torch.__version__, "device": device}


def plot(report: dict[str, Any], path: Path) -> None:
    """Throughput over concurrency, a panel for each pair of images and output length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(run["images"], run["output"]) for run in report["runs"]})
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.6), squeeze=False)
    for axis, (images, output) in zip(axes[0], panels, strict=True):
        for name in report["arms"]:
            runs = [
                run for run in report["runs"] if (run["arm"], run["images"], run["output"]) == (name, images, output)
            ]
            axis.plot(
                [run["concurrency"] for run in runs], [run["tokens_per_second"] for run in runs], "o-", label=name
            )
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{images} image(s), {output} tokens out")
        axis.set_xlabel("requests at once")
        axis.set_ylabel("output tokens/s")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    raise SystemExit(main())
