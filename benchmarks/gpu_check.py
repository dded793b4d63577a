"""Are a plan's answers exact on this machine? One command, some minutes, offline: `python -m benchmarks.gpu_check`.

A tiny random model with each attention backend, type and KV cache, eager and with CUDA graphs, is compared with the
masked transformers model in float32; and so is stock vLLM, with the whole one, under the same conditions. What a GPU's
arithmetic is off by is in both (TF32 in float32, halves, FP8), so a plan passes where its largest difference in
log-probability is at most `FACTOR` times stock's own and a floor. On a machine without a GPU a few cases of the CPU's
attention run. Needs the tests' folder beside this one; does not know which cases there are (`gpu_check_cases`).
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from benchmarks import offline

sys.path.insert(0, str(offline.ROOT / "tests" / "support"))

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from engine_cases import worst_difference  # noqa: E402
from engine_host import EngineOutcome, Job  # noqa: E402
from oracle import TinyModel  # noqa: E402

from benchmarks.gpu_check_cases import CPU_CASES, GEOMETRY, GPU_CASES, PLANS, Case, make_model  # noqa: E402
from benchmarks.host_pool import HostPool  # noqa: E402
from benchmarks.machine import described  # noqa: E402
from profiles.files import write_atomically  # noqa: E402
from profiles.planning.image_exit import exit_layer  # noqa: E402
from profiles.pruning_plan import PruningPlan  # noqa: E402
from vhserve.child_processes import ending_on_signals  # noqa: E402

FACTOR: Final = 1.5
FLOOR: Final = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
"""What is allowed above `FACTOR` times stock's difference: in float32 the bound of the tests, else about one unit in
the last place of a number between 1 and 2."""

ENGINE_SECONDS: Final = 180
"""In which an engine starts, compiled and with CUDA graphs, and answers; or it hangs."""

Submit = Callable[[Job], "Future[EngineOutcome]"]
"""Has an engine started, asked and ended, perhaps later."""

Row = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("gpu_check"), help="path without suffix")
    made.add_argument("--cases", default="", help="only cases whose name holds this")
    made.add_argument("--hosts", type=int, help="processes with an engine each; 4 on a GPU, 1 on CPUs if not given")
    made.add_argument("--seconds", type=float, default=570, help="wait for no case after these")
    made.add_argument("--resume", action="store_true", help="leave out cases that are exact in what --out has already")
    return made


def main(argv: list[str] | None = None) -> int:
    begun = time.monotonic()
    import torch

    args = parser().parse_args(argv)
    every = GPU_CASES if torch.cuda.is_available() else CPU_CASES
    cases = {name: case for name, case in every.items() if args.cases in name}
    if not cases:
        print(f"no case has {args.cases!r} in its name; expected a part of one of: {', '.join(every)}", file=sys.stderr)
        return 2
    out = args.out.with_suffix(".json")
    report: Row = {"command": vars(args) | {"out": str(args.out)}, **described(), "cases": {}}
    if args.resume and out.exists():
        before = json.loads(out.read_text())["cases"]
        report["cases"] = {name: row for name, row in before.items() if name in cases and row["exact"]}
        print(f"exact before: {', '.join(report['cases']) or 'none'}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with ending_on_signals(), tempfile.TemporaryDirectory(prefix="vhserve-gpu-") as scratch:
        folder = Path(scratch)
        model = TinyModel(make_model(folder / "tiny"), GEOMETRY)
        environment = offline.environment(folder / "plugin") | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        if every is CPU_CASES:  # kernels this short would wait for each other's threads
            environment |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        sys.path.append(str(folder / "plugin"))  # a host takes its path from this process
        pool = HostPool(folder, environment, args.hosts or (1 if every is CPU_CASES else 4), ENGINE_SECONDS)
        left = {name: case for name, case in cases.items() if name not in report["cases"]}
        try:
            for name, row in check(pool.submit, model, left, until=begun + args.seconds):
                report["cases"][name] = row
                write_atomically(out, json.dumps(report, indent=1) + "\n")
                print(f"{time.monotonic() - begun:5.0f} s  {describe(name, row)}", flush=True)
        except TimeoutError:
            print(f"{args.seconds:.0f} s are over", flush=True)
        finally:
            pool.close()
            args.out.with_name(args.out.name + "_host.log").write_bytes(pool.log())
    return verdict(list(cases), report["cases"])


def check(
    submit: Submit,
    model: TinyModel,
    cases: Mapping[str, Case],
    expected: PruningPlan | None = None,
    until: float = float("inf"),
) -> Iterator[tuple[str, Row]]:
    """Name and row of each case as it is done.

    Parameters
    ----------
    expected
        What transformers is to compute instead of the plan that is served: a check that cannot fail shows nothing.
    until
        When to give up, by `time.monotonic`.

    Raises
    ------
    TimeoutError
    """
    engines = []
    for name, case in cases.items():
        plan = PLANS[case.plan](model)
        engines.append((name, case, plan, submit(job(model, case, plan)), submit(job(model, case, None))))
    for name, case, plan, ours, theirs in engines:
        row: Row = {
            "plan": _difference(_awaited(ours, until), model, case, plan, expected or plan),
            "stock": _difference(
                _awaited(theirs, until), model, case, None, PruningPlan.unpruned(model.ref, model.geometry)
            ),
        }
        yield name, row | judge(row["plan"], row["stock"], case.dtype)


def job(model: TinyModel, case: Case, served: PruningPlan | None) -> Job:
    """What an engine of a case is asked; stock vLLM's without a plan."""
    given = None if served is None else served.model_dump(mode="json")
    probe = "exit_probes:layer_of_exit" if _exits(served) else ""
    settings = case.engine_settings(with_plan=served is not None)
    return Job(str(model.path), given, case.rounds, settings, case.patches if served else (), probe)


def _exits(served: PruningPlan | None) -> bool:
    return served is not None and exit_layer(served) is not None


def _awaited(future: "Future[EngineOutcome]", until: float) -> EngineOutcome:
    left = None if until == float("inf") else max(0.0, until - time.monotonic())
    return future.result(left)


def _difference(
    outcome: EngineOutcome, model: TinyModel, case: Case, served: PruningPlan | None, expected: PruningPlan
) -> float | str:
    """Largest difference in log-probability; or what was raised instead of an answer."""
    if outcome.failure is not None:
        return f"{outcome.failure[0]}: {outcome.failure[1][-4000:]}"
    if _exits(served) and outcome.probed is None:
        return "rows of images were computed in all layers; the log says why"
    if case.offloads and not all(answer.cached for answer in outcome.answers[1] if len(answer.prompt_ids) > 32):
        return f"prompts were computed again: {[answer.cached for answer in outcome.answers[1]]} tokens were loaded"
    return worst_difference(model.oracle, expected, case.rounds, outcome.answers)


def judge(plan: float | str, stock: float | str, dtype: str) -> dict[str, Any]:
    """What is allowed, and whether the plan keeps to it; neither where an engine did not answer."""
    if isinstance(plan, str) or isinstance(stock, str):
        return {"allowed": None, "exact": False}
    allowed = FACTOR * stock + FLOOR[dtype]
    return {"allowed": allowed, "exact": math.isfinite(allowed) and bool(plan <= allowed)}


def describe(name: str, row: dict[str, Any]) -> str:
    if row["allowed"] is None:
        plan, stock = (f"...{one[-600:]}" if isinstance(one, str) else one for one in (row["plan"], row["stock"]))
        return f"{name}: NOT exact, an engine did not answer: plan {plan}; stock {stock}"
    verdict = "exact" if row["exact"] else "NOT exact"
    return f"{name}: {verdict}, plan {row['plan']:.2g}, stock vLLM {row['stock']:.2g}, allowed {row['allowed']:.2g}"


def verdict(cases: list[str], report: Mapping[str, Mapping[str, Any]]) -> int:
    """Print the end; 0 where every case was run and is exact."""
    wrong = [name for name, row in report.items() if not row["exact"]]
    missing = [name for name in cases if name not in report]
    if wrong:
        print(f"NOT exact: {', '.join(wrong)}", flush=True)
    if missing:
        print(f"not run: {', '.join(missing)}", flush=True)
    if not wrong and not missing:
        print(f"exact in every case of {len(report)}", flush=True)
    return 1 if wrong or missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
