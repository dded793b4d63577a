"""When leaving out projections of dropped tokens pays: `python -m benchmarks.dropped_tokens --help`.

The projections of one decoder layer, by vLLM's own linear method and by vhserve's, in turns, for batches of so many
tokens of which text-only heads drop so many. On a GPU vhserve's is views of the weight, taken in every row, and the end
says from how many saved multiply-adds on they pay, and what `LAUNCH_WORTH` is to be. On CPUs it is packed parts, and
the end says what prompts gain and steps without dropped tokens lose, by the share of text-only heads. Does not know how
a layer is built (`projections`).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import machine, sizes
from profiles.files import write_atomically
from profiles.torchvision_import import ensure_torchvision

if TYPE_CHECKING:
    from benchmarks.dummy_model import Geometry

SECONDS: Final = 0.02
"""Least length of a turn."""

Row = dict[str, Any]
Work = Callable[[], None]
Clock = Callable[[], float]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.dropped_tokens", description=__doc__)
    sizes.add_flags(made)
    made.set_defaults(model="llava-1.6-7b")
    made.add_argument("--lasts", type=shares, default="0.25,0.5,0.75,1", help="comma list: shares of text-only heads")
    made.add_argument("--tokens", type=sizes.numbers, default="1,16,646,2374,8192", help="comma list: of a batch")
    made.add_argument("--dropped", type=shares, default="0,0.5,0.9,0.97", help="comma list: shares of the tokens")
    made.add_argument("--turns", type=int, default=7, help="of each arm in every row")
    made.add_argument("--dtype", default="bfloat16")
    made.add_argument("--threads", type=int, help="on CPUs; torch's default if not given")
    made.add_argument("--cpu-time", action="store_true", help="seconds of CPU, for busy machines; with --threads 1")
    made.add_argument("--out", type=Path, default=Path("dropped_tokens"), help="path without suffix")
    return made


def shares(text: str) -> list[float]:
    """Of a comma list."""
    return [float(one) for one in text.split(",")]


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    ensure_torchvision()  # before transformers
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    geometry = sizes.geometry(args)
    report: dict[str, Any] = {
        "command": vars(args) | {"out": str(args.out)},
        "geometry": asdict(geometry),
        **machine.described(),
        "rows": [],
    }
    out = args.out.with_suffix(".json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for row in measure(args, geometry):
            report["rows"].append(row)
            write_atomically(out, json.dumps(report, indent=1) + "\n")
            print(describe(row), flush=True)
    report["summary"] = list(summary(report["rows"]))
    write_atomically(out, json.dumps(report, indent=1) + "\n")
    print("\n".join(report["summary"]))
    return 0


def measure(args: argparse.Namespace, geometry: "Geometry") -> Iterator[Row]:
    """A row for every projection, share of text-only heads, number of tokens and share of dropped ones."""
    import torch

    from benchmarks.projections import COPIES, chosen, launches, projections, saved

    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, args.dtype)
    views, clock = device != "cpu", _clock(device, args.cpu_time)
    for one in (one for share in args.lasts for one in projections(geometry, share, views)):
        arms = one.build(device, dtype)
        for tokens in args.tokens:
            x = torch.randn(tokens, one.inputs, device=device, dtype=dtype)
            for kept in kept_tokens(tokens, args.dropped, with_all=not views):
                indices = None if kept == tokens else torch.randperm(tokens)[:kept].sort().values.to(device)
                stock, ours = alternate(
                    lambda: arms.run_stock(x),  # noqa: B023  # called at once
                    lambda: arms.run_ours(x, indices),  # noqa: B023
                    args.turns,
                    clock,
                )
                ratios = sorted(mine / theirs for mine, theirs in zip(ours, stock, strict=True))
                saving = saved(one, tokens, kept, views)
                yield {
                    "way": "views" if views else "packed",
                    "projection": one.name,
                    "lasts": one.lasts_share,
                    "tokens": tokens,
                    "dropped": 1 - kept / tokens,
                    "saved": saving,
                    "launches": launches(one),
                    "chosen": chosen(one, saving),
                    "stock": [seconds / COPIES for seconds in stock],
                    "ours": [seconds / COPIES for seconds in ours],
                    "ratio": [statistics.median(ratios), ratios[0], ratios[-1]],
                }


def kept_tokens(tokens: int, dropped: Sequence[float], with_all: bool) -> list[int]:
    """How many tokens are kept, most first; on devices a batch that keeps all is vLLM's own."""
    numbers = {tokens - round(share * tokens) for share in dropped}
    return sorted(numbers if with_all else numbers - {tokens}, reverse=True)


def alternate(stock: Work, ours: Work, turns: int, clock: Clock) -> tuple[list[float], list[float]]:
    """Seconds of each, by turn; which goes first alternates."""
    for work in (stock, ours):
        work()  # warm up
    start = clock()
    stock()
    calls = max(1, round(SECONDS / max(clock() - start, 1e-6)))
    spent: tuple[list[float], list[float]] = ([], [])
    arms = list(zip((stock, ours), spent, strict=True))
    for turn in range(turns):
        for work, own in arms if turn % 2 == 0 else reversed(arms):
            start = clock()
            for _ in range(calls):
                work()
            own.append((clock() - start) / calls)
    return spent


def _clock(device: str, cpu_time: bool) -> Clock:
    import torch

    def synchronised() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    if device == "cuda":
        return synchronised
    return time.process_time if cpu_time else time.perf_counter


def describe(row: Row) -> str:
    middle, low, high = row["ratio"]
    return (
        f"{row['projection']:>8}  {row['lasts']:4.0%} text-only  "
        f"{row['tokens']:6,} tokens, {row['dropped']:4.0%} dropped  saved {row['saved'] / 1e9:8.3f} G multiply-adds  "
        f"{1e6 * statistics.median(row['stock']):9.1f} us of stock, ratio {middle:.3f} ({low:.3f} to {high:.3f})"
    )


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """What follows for the choice that vhserve makes: by size on devices, by the share of text-only heads on CPUs."""
    views = [row for row in rows if row["way"] == "views"]
    for kind in dict.fromkeys(row["projection"] for row in views):
        own = [row for row in views if row["projection"] == kind]
        found = crossing(own)
        pays = "pay nowhere here" if found is None else f"pay from {found / 1e9:.3f} G saved multiply-adds on"
        faster, slower = ([row["chosen"] for row in own if (row["ratio"][0] < 1) == wanted] for wanted in (True, False))
        yield (
            f"{kind}: views {pays}; vhserve takes them in {sum(faster)} of {len(faster)} rows where they are faster, "
            f"and in {sum(slower)} of {len(slower)} where they are not"
        )
    if views:
        yield advice(views)
    packed = [row for row in rows if row["way"] == "packed"]
    for share in sorted({row["lasts"] for row in packed}):
        own = [row for row in packed if row["lasts"] == share]
        yield f"{share:.0%} text-only: {gain(own)}; vhserve: {'in parts' if own[0]['chosen'] else 'whole'}"


def crossing(rows: Sequence[Row]) -> float | None:
    """Saved multiply-adds from which on no row is slower than stock; None where that of most is."""
    found = None
    for row in sorted(rows, key=lambda row: -float(row["saved"])):
        if row["ratio"][0] > 1:
            break
        found = float(row["saved"])
    return found


def advice(rows: Sequence[Row]) -> str:
    """Which `LAUNCH_WORTH` loses least, and what others do."""
    from vhserve.engine.weights import weight_views

    # Between two rows all are alike; the least that takes views in no row more than the best one.
    worths = sorted({max(0, math.floor(row["saved"] / row["launches"])) for row in rows})
    best = min([*worths, math.inf], key=lambda worth: loss(rows, worth))
    said = {"today's": weight_views.LAUNCH_WORTH, "views wherever they save": 0, "views nowhere": math.inf}
    others = ", ".join(f"{name} {loss(rows, worth):.2%}" for name, worth in said.items())
    file = weight_views.__name__.replace(".", "/") + ".py"
    value = "a number above all savings here" if best == math.inf else f"{best:_}"
    return (
        f"set LAUNCH_WORTH in {file} to {value}: rows are {loss(rows, best):.2%} above the faster of the two ways on "
        f"average; {others}"
    )


def loss(rows: Sequence[Row], worth: float) -> float:
    """How far the chosen way is above the faster one on average, with this `LAUNCH_WORTH`."""
    ratios = [row["ratio"][0] if row["saved"] >= row["launches"] * worth else 1.0 for row in rows]
    best = [min(1.0, row["ratio"][0]) for row in rows]
    return statistics.mean(own / least - 1 for own, least in zip(ratios, best, strict=True))


def gain(rows: Sequence[Row]) -> str:
    """What the largest batch gains, and how many of the smallest without a dropped token lose as much."""
    largest = [row for row in rows if row["tokens"] == max(row["tokens"] for row in rows)]
    prompts = [row for row in largest if row["dropped"] == max(row["dropped"] for row in largest)]
    steps = [row for row in rows if row["dropped"] == 0 and row["tokens"] == min(row["tokens"] for row in rows)]
    ours, stock = _both(prompts, "ours"), _both(prompts, "stock")
    said = f"{prompts[0]['tokens']:,} tokens, {prompts[0]['dropped']:.0%} dropped: {ours / stock:.2f} of stock"
    if not steps:
        return said
    step, step_stock = _both(steps, "ours"), _both(steps, "stock")
    said += f"; {steps[0]['tokens']} without: {step / step_stock:.2f}"
    lost = step - step_stock
    return said if lost <= 0 else f"{said}, {max(0.0, stock - ours) / lost:,.0f} of which lose what one prompt gains"


def _both(rows: Sequence[Row], arm: str) -> float:
    """Seconds of a layer's two projections."""
    return sum(statistics.median(row[arm]) for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
