"""What calibration costs: the fast path beside a plain forward pass and beside `output_attentions=True`.

    python -m benchmarks.calibration_cost [--rounds 7] [--json FILE]

All three arms run in one process, in turns, on one batch, so that whatever else the machine does hits all alike. Peak
memory is read off a process of its own for each arm. Owns the arms and the models; measures `calibrate` as it is.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration  # noqa: E402

from calibrate.datasets import open_dataset  # noqa: E402
from calibrate.models.batches import Batch, make_batch  # noqa: E402
from calibrate.models.loading import LoadedModel, geometry_of, load_model  # noqa: E402
from calibrate.scoring.attention_rows import AttentionRows, attention_rows  # noqa: E402
from calibrate.scoring.scorers import active_scorers  # noqa: E402
from calibrate.scoring.scorers.base import BatchSignals  # noqa: E402
from calibrate.scoring.sums import Sums  # noqa: E402
from profiles.geometry import ModelRef  # noqa: E402
from profiles.provenance import git_commit, versions  # noqa: E402

IMAGE, TEXT_TOKENS, SIDE, PATCH = 4, 60, 672, 14
ARMS = ("plain", "fast", "output_attentions")

Rounds = dict[str, list[float]]


@dataclass(frozen=True)
class Case:
    """A model with random weights (`demo`: its own) and a batch for it."""

    title: str
    batch: int
    text: Mapping[str, Any] | None = None


DEMO_DECODER = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "head_dim": 32,
}
LAYER_OF_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "head_dim": 128,
}
CASES = {
    "demo": Case("demo model, 144 image tokens, batch 16", 16),
    "2304": Case("the demo's decoder, 2,304 image tokens, batch 1, random weights", 1, DEMO_DECODER),
    "7b-layer": Case("one layer of a 7B decoder, 2,304 image tokens, batch 1, random weights", 1, LAYER_OF_7B),
}


def prepare(name: str) -> tuple[LoadedModel, Batch]:
    """Model and batch of a case."""
    case = CASES[name]
    if case.text is None:
        loaded = load_model("demo", "float32", "cpu")
        return loaded, make_batch(loaded, list(open_dataset("synthetic", samples=case.batch, seed=0)))
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(vocab_size=256, **case.text), image_token_index=IMAGE
    )
    config._attn_implementation = "sdpa"
    model: Any = LlavaForConditionalGeneration(config)
    model.float().eval().requires_grad_(False)
    ref = ModelRef(name=name, revision="random", architecture="LlavaForConditionalGeneration")
    loaded = LoadedModel(model, None, ref, geometry_of(config), torch.device("cpu"), torch.float32)
    image = torch.zeros(case.batch, (SIDE // PATCH) ** 2 + TEXT_TOKENS, dtype=torch.bool)
    image[:, 5 : 5 + (SIDE // PATCH) ** 2] = True
    tokens = torch.randint(IMAGE + 1, 256, image.shape).masked_fill(image, IMAGE)
    pixels = torch.randn(case.batch, 3, SIDE, SIDE)
    last = torch.full((case.batch,), image.shape[1] - 1)
    nothing = torch.zeros_like(image)
    inputs = {"input_ids": tokens, "pixel_values": pixels}
    has_box = torch.zeros(case.batch, dtype=torch.bool)
    return loaded, Batch(inputs, ~nothing, image, spans=image, box=nothing, has_box=has_box, last=last)


@contextmanager
def arm(name: str, loaded: LoadedModel, batch: Batch) -> Iterator[Callable[[], Any]]:
    """One way to run the batch; the two that measure also score and add up, as a calibration run does."""
    model: Any = loaded.model.model
    empty = Sums.empty(loaded.geometry, active_scorers(effects=False))
    every = torch.arange(len(batch))

    def add(rows: AttentionRows) -> Sums:
        return empty.plus(batch, rows, BatchSignals(rows.rows, batch.image, batch.box))

    def with_matrices() -> Sums:
        attentions = model(**batch.inputs, output_attentions=True, use_cache=False).attentions
        rows = [matrix[every, :, batch.last].float() for matrix in attentions]
        return add(AttentionRows(rows, torch.from_numpy(empty.arrays["output"]), 1))

    if name == "plain":
        yield lambda: model(**batch.inputs, use_cache=False)
    elif name == "fast":
        with attention_rows(loaded) as read:
            yield lambda: add(read(batch))
    else:
        decoder: Any = loaded.language_model
        decoder.set_attn_implementation("eager")
        yield with_matrices
        decoder.set_attn_implementation("sdpa")


@torch.inference_mode()
def measure(case: str, rounds: int) -> tuple[Rounds, Rounds]:
    """Seconds, and CPU seconds of all threads, of each arm in each round; the order turns by one every round."""
    loaded, batch = prepare(case)
    seconds: Rounds = {name: [] for name in ARMS}
    cpu: Rounds = {name: [] for name in ARMS}
    for number in range(-1, rounds):
        turn = number % len(ARMS)
        for name in ARMS[turn:] + ARMS[:turn]:
            with arm(name, loaded, batch) as run:
                start, start_cpu = time.perf_counter(), time.process_time()
                run()
                spent, spent_cpu = time.perf_counter() - start, time.process_time() - start_cpu
            if number >= 0:  # the first round warms up
                seconds[name].append(spent)
                cpu[name].append(spent_cpu)
    return seconds, cpu


@torch.inference_mode()
def peak_memory(case: str, name: str) -> dict[str, float]:
    """MiB: highest resident memory during two passes of one arm, and how much of it came with them."""
    loaded, batch = prepare(case)
    # Loading peaks higher than a small model's pass: start the high-water mark anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = high_water()
    with arm(name, loaded, batch) as run:
        for _ in range(2):
            run()
    peak = high_water()
    return {"peak": peak, "rise": peak - before}


def high_water() -> float:
    """Highest resident memory of this process so far, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def memory_of_processes(case: str) -> dict[str, dict[str, float]]:
    """`peak_memory` of each arm, each in a process of its own."""
    found = {}
    for name in ARMS:
        command = [sys.executable, "-m", "benchmarks.calibration_cost", "--memory-of", name, "--case", case]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def summarise(seconds: Rounds) -> dict[str, Any]:
    """Medians and ranges of the arms, and of the ratios within each round."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "low": min(values), "high": max(values)}

    def ratio(over: str, under: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(seconds[over], seconds[under], strict=True)])

    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "fast_over_plain": ratio("fast", "plain"),
        "output_attentions_over_fast": ratio("output_attentions", "fast"),
    }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def table(case: str, result: dict[str, Any]) -> Table:
    shown = Table(title=CASES[case].title, title_justify="left")
    shown.add_column("arm", no_wrap=True)
    for column in ("seconds", "range", "CPU s", "peak MiB", "rise MiB"):
        shown.add_column(column, justify="right")
    for name in ARMS:
        spent, memory = result["seconds"][name], result["memory"][name]
        limits = f"{spent['low']:.3f} to {spent['high']:.3f}"
        numbers = f"{spent['median']:.3f}", limits, f"{result['cpu']['seconds'][name]['median']:.3f}"
        shown.add_row(name, *numbers, f"{memory['peak']:.0f}", f"{memory['rise']:.0f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="What calibration costs.")
    parser.add_argument("--case", choices=(*CASES, "all"), action="append", help="demo and 2304 if not given")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of each case")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    parser.add_argument("--memory-of", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = arguments.case or ["demo", "2304"]
    if arguments.memory_of:
        print(json.dumps(peak_memory(cases[0], arguments.memory_of)))
        return
    about = machine()
    console, results = Console(highlight=False), {}
    for case in list(CASES) if "all" in cases else cases:
        seconds, cpu = measure(case, arguments.rounds)
        results[case] = summarise(seconds) | {"cpu": summarise(cpu), "memory": memory_of_processes(case)}
        results[case] |= {"rounds": {"seconds": seconds, "cpu": cpu}}
        console.print(table(case, results[case]))
        for name in ("fast_over_plain", "output_attentions_over_fast"):
            for what, found in (("time", results[case]), ("CPU time", results[case]["cpu"])):
                ratio = found[name]
                words = f"{name.replace('_over_', ' / ')}, {what}"
                console.print(f"{words}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    document = {
        "machine": about,
        "versions": versions("vhserve", "torch", "transformers"),
        "commit": git_commit(),
        "cases": results,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
