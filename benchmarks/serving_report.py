"""What `benchmarks.serving` makes of its turns: medians, ratios of arms, each arm's best, tables and the plot.

A turn is one arm's run of a workload, as a dictionary. Does not know engines.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

Turn = dict[str, Any]
Cell = tuple[int, int, int]
"""Images, reply tokens and requests at once."""


def summaries(turns: list[Turn], references: list[str]) -> list[dict[str, Any]]:
    """Medians over the repeats of every arm in every cell, and its ratios to the arms that it is compared with.

    Parameters
    ----------
    references
        Names of those arms.
    """
    cells: dict[tuple[Cell, str], list[Turn]] = {}
    for turn in turns:
        cell = (turn["images"], turn["output"], turn["concurrency"])
        cells.setdefault((cell, turn["arm"]), []).append(turn)
    made = []
    for (cell, arm), own in cells.items():
        others = {one: cells[cell, one] for one in references if one != arm and (cell, one) in cells}
        made.append(
            _summary(arm, cell, own) | {"ratios": {name: ratios(own, theirs) for name, theirs in others.items()}}
        )
    return made


def _summary(arm: str, cell: Cell, turns: list[Turn]) -> dict[str, Any]:
    images, output, concurrency = cell
    rates = [rate(turn) for turn in turns]
    return {
        "arm": arm,
        "images": images,
        "output": output,
        "concurrency": concurrency,
        "requests": turns[0]["requests"],
        "prompt_tokens": turns[0]["prompt_tokens"],
        "tokens_per_second": statistics.median(rates),
        "each": rates,
        "first_token": statistics.median(median_of(turn, "first_token") for turn in turns),
        "per_token": statistics.median(median_of(turn, "per_token") for turn in turns),
        "preemptions": statistics.median(turn["preemptions"] for turn in turns),
        "most_answering": max(turn["most_answering"] for turn in turns),
    }


def rate(turn: Turn) -> float:
    """Output tokens a second."""
    return float(turn["output_tokens"] / turn["seconds"])


def median_of(turn: Turn, figure: str) -> float:
    """Of the requests' own figures; 0 where replies have no second token."""
    return statistics.median(turn[figure]) if turn[figure] else 0.0


def ratios(own: list[Turn], theirs: list[Turn]) -> dict[str, list[float]]:
    """Of throughput and time per token: the ratio of medians, and the least and greatest within a turn."""

    def compared(figure: Callable[[Turn], float]) -> list[float]:
        by_repeat = {turn["repeat"]: figure(turn) for turn in theirs}
        each = [(figure(turn), by_repeat[turn["repeat"]]) for turn in own if by_repeat.get(turn["repeat"])]
        if not each:
            return []
        within = sorted(a / b for a, b in each)
        middle = statistics.median(a for a, _ in each) / statistics.median(b for _, b in each)
        return [middle, within[0], within[-1]]

    return {"throughput": compared(rate), "per_token": compared(lambda turn: median_of(turn, "per_token"))}


def bests(runs: list[dict[str, Any]], references: list[str]) -> list[dict[str, Any]]:
    """Each arm at the number of requests at once where its median throughput is greatest, and the ratios of bests."""
    best: dict[tuple[int, int, str], dict[str, Any]] = {}
    for run in runs:
        key = (run["images"], run["output"], run["arm"])
        if key not in best or run["tokens_per_second"] > best[key]["tokens_per_second"]:
            best[key] = run
    made = []
    for (images, output, _), run in best.items():
        own = run["tokens_per_second"]
        others = {name: best[images, output, name] for name in references if (images, output, name) in best}
        made.append(run | {"of_bests": {name: own / other["tokens_per_second"] for name, other in others.items()}})
    return made


def describe_turn(turn: Turn) -> str:
    return (
        f"{turn['arm']:>16}  images {turn['images']}  output {turn['output']}  concurrency "
        f"{turn['concurrency']:>3}  turn {turn['repeat'] + 1}: {rate(turn):8.2f} tokens/s  first token "
        f"{median_of(turn, 'first_token'):6.2f} s  {1000 * median_of(turn, 'per_token'):6.1f} ms/token  "
        f"preemptions {turn['preemptions']}  answered at once {turn['most_answering']}  {turn['seconds']:.0f} s"
    )


def describe_capacity(counted: dict[str, Any]) -> str:
    end = "before the first preemption" if counted["preemptions"] else "and nothing was preempted"
    return (
        f"{counted['arm']:>16}  images {counted['images']}  output {counted['output']}: {counted['most_answering']} "
        f"requests answered at once, {counted['most_computed']} prompts computed, {end}"
    )


def tables(report: dict[str, Any]) -> str:
    """What was counted, the medians of every cell and each arm at its best, a line each."""
    lines = [describe_capacity(counted) for counted in report["capacity"]]
    for run in report["runs"]:
        line = (
            f"{run['arm']:>16}  images {run['images']}  output {run['output']}  concurrency {run['concurrency']:>3}: "
            f"{run['tokens_per_second']:8.2f} tokens/s ({min(run['each']):.2f} to {max(run['each']):.2f})  "
            f"first token {run['first_token']:.2f} s  {1000 * run['per_token']:.1f} ms/token  "
            f"preemptions {run['preemptions']:g}"
        )
        for name, compared in run["ratios"].items():
            for figure, of in compared.items():
                if of:
                    line += f"\n{'':>18}{of[0]:.3f} x {name}'s {figure} ({of[1]:.3f} to {of[2]:.3f})"
        lines.append(line)
    for run in bests(report["runs"], report["references"]):
        compared = ", ".join(f"{ratio:.2f} x {name}'s best" for name, ratio in run["of_bests"].items())
        lines.append(
            f"{run['arm']:>16}  images {run['images']}  output {run['output']}  best at {run['concurrency']:>3}: "
            f"{run['tokens_per_second']:8.2f} tokens/s  {compared}"
        )
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Throughput over concurrency, a panel for each pair of images and output length."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(run["images"], run["output"]) for run in report["runs"]})
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 3.6), squeeze=False)
    for axis, (images, output) in zip(axes[0], panels, strict=True):
        for name in report["arms"]:
            runs = sorted(
                (run["concurrency"], run["tokens_per_second"])
                for run in report["runs"]
                if (run["arm"], run["images"], run["output"]) == (name, images, output)
            )
            axis.plot([at for at, _ in runs], [speed for _, speed in runs], "o-", label=name)
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{images} image(s), {output} tokens out")
        axis.set_xlabel("requests at once")
        axis.set_ylabel("output tokens/s")
    axes[0][0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
