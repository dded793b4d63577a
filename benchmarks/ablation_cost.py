"""What the ablation table costs: all its cells with everything shared, beside a fresh full pass for each of them.

    python -m benchmarks.ablation_cost [--rounds 5] [--samples 8] [--json FILE]

The arms run in one process, in turns, on the same samples: `naive` prepares the samples and runs the whole model anew
for every selection of heads; `prepared` prepares them once; `shared` is what `vhserve ablate` does. All three must give
the same answers. Owns the arms; measures `calibrate` as it is.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import offline
from benchmarks.calibration_cost import machine
from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()
sys.path.insert(0, str(offline.ROOT / "tests" / "support"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from profile_factories import profile_of  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from calibrate.ablation.plans import CURVE, SHORT, TABLE, Configuration, configurations  # noqa: E402
from calibrate.datasets import Dataset, open_dataset  # noqa: E402
from calibrate.masking.prefix_sharing import PrefixSharing, Variant  # noqa: E402
from calibrate.masking.treatments import treated  # noqa: E402
from calibrate.models.answer_logits import next_token_logits  # noqa: E402
from calibrate.models.batches import make_batch  # noqa: E402
from calibrate.models.loading import LoadedModel, load_model  # noqa: E402
from profiles.names import Granularity  # noqa: E402
from profiles.provenance import git_commit, versions  # noqa: E402
from profiles.store import load_profile  # noqa: E402

SHAPES = {"paper": TABLE, "short": SHORT, "curve": CURVE}
BATCH = 8

Tokens = np.ndarray[Any, np.dtype[np.int64]]


def naive(loaded: LoadedModel, dataset: Dataset, chosen: list[Configuration]) -> Tokens:
    return _passes(loaded, chosen, lambda: [make_batch(loaded, some) for some in _cut(list(dataset))])


def prepared(loaded: LoadedModel, dataset: Dataset, chosen: list[Configuration]) -> Tokens:
    batches = [make_batch(loaded, some) for some in _cut(list(dataset))]
    return _passes(loaded, chosen, lambda: batches)


def shared(loaded: LoadedModel, dataset: Dataset, chosen: list[Configuration]) -> Tokens:
    sharing = PrefixSharing(loaded, [Variant(one.treatments) for one in chosen])
    columns = []
    for some in _cut(list(dataset)):
        rows = dict(sharing.logits(make_batch(loaded, some)))
        columns.append(np.stack([rows[row].argmax(-1).numpy() for row in range(len(rows))]))
    return np.hstack(columns)


ARMS: dict[str, Callable[[LoadedModel, Dataset, list[Configuration]], Tokens]] = {
    "naive": naive,
    "prepared": prepared,
    "shared": shared,
}


def _passes(loaded: LoadedModel, chosen: list[Configuration], batches: Callable[[], list[Any]]) -> Tokens:
    full = [["full"] * loaded.geometry.query_heads] * loaded.geometry.layers
    rows = []
    for treatments in [full, *(one.treatments for one in chosen)]:
        with treated(loaded.model, treatments):
            rows.append(np.hstack([next_token_logits(loaded, one).argmax(-1).numpy() for one in batches()]))
    return np.stack(rows)


def _cut(samples: list[Any]) -> list[list[Any]]:
    return [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]


def measure(loaded: LoadedModel, dataset: Dataset, chosen: list[Configuration], rounds: int) -> dict[str, Any]:
    """Seconds and CPU seconds of each arm in each round, the order turning by one; and answers that differ."""
    names = list(ARMS)
    spent: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "cpu": []} for name in names}
    answers: dict[str, Tokens] = {}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start, start_cpu = time.perf_counter(), time.process_time()
            answers[name] = ARMS[name](loaded, dataset, chosen)
            spent[name]["seconds"].append(time.perf_counter() - start)
            spent[name]["cpu"].append(time.process_time() - start_cpu)
    differ = {name: int((answers[name] != answers["naive"]).sum()) for name in names}
    ratios = {
        f"{slow}_over_shared": {
            what: _spread([a / b for a, b in zip(spent[slow][what], spent["shared"][what], strict=True)])
            for what in ("seconds", "cpu")
        }
        for slow in ("naive", "prepared")
    }
    return {"rounds": spent, "answers": int(answers["naive"].size), "answers_that_differ": differ, "ratios": ratios}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the ablation table costs.")
    parser.add_argument("--rows", choices=SHAPES, default="paper", help="rows of the table, or the curve")
    parser.add_argument("--draws", type=int, default=3, help="random selections for each cell")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--profile", type=Path, help="head profile to choose heads by; made-up scores if not given")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    arguments = parser.parse_args()
    about = machine()
    loaded = load_model(arguments.model, "float32", "cpu")
    profile = load_profile(arguments.profile) if arguments.profile else profile_of(loaded, falling=True)
    shape = SHAPES[arguments.rows]
    granularity: Granularity = "kv_group" if profile.geometry.group_size > 1 else "query_head"
    chosen = configurations(profile, shape.budgets, shape=shape, draws=arguments.draws, seed=0, granularity=granularity)
    dataset = open_dataset("synthetic", samples=arguments.samples, seed=0)
    measure(loaded, dataset, chosen[:1], 1)  # warms up
    with torch.inference_mode():
        result = measure(loaded, dataset, chosen, arguments.rounds)
    table = Table(title=f"{len(chosen)} selections of heads and none, {len(dataset)} samples", title_justify="left")
    for column in ("arm", "seconds", "range", "CPU seconds"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, spent in result["rounds"].items():
        seconds, cpu = _spread(spent["seconds"]), _spread(spent["cpu"])
        limits = f"{seconds['low']:.2f} to {seconds['high']:.2f}"
        table.add_row(name, f"{seconds['median']:.2f}", limits, f"{cpu['median']:.2f}")
    console = Console(highlight=False)
    console.print(table)
    for name, kinds in result["ratios"].items():
        for kind, ratio in kinds.items():
            words = f"{name.replace('_over_', ' / ')}, {'time' if kind == 'seconds' else 'CPU time'}"
            console.print(f"{words}: {ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})")
    console.print(f"answers that differ from naive's, of {result['answers']}: {result['answers_that_differ']}")
    if arguments.json:
        document = {"machine": about, "versions": versions("vhserve", "torch", "transformers"), "commit": git_commit()}
        arguments.json.write_text(json.dumps(document | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
