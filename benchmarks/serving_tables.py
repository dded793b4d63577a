"""The tables and the plot that `benchmarks.serving` ends with. Does not know engines, nor how figures came about."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print every cell's medians, and what each arm holds and is at its best."""
    console = console or Console(width=200)
    console.print(cells(report), summary(report))


def cells(report: dict[str, Any]) -> Table:
    """Medians of every cell, with the least and greatest turn."""
    made = _table(
        "medians (least to greatest turn)",
        ("arm", "images", "output", "at once", "tokens/s", "first token", "per token", "preempted", "throughput, of"),
    )
    for run in report["runs"]:
        compared = {name: of["throughput"] for name, of in run["ratios"].items()}
        made.add_row(
            run["arm"],
            *(str(run[key]) for key in ("images", "output", "concurrency")),
            f"{run['tokens_per_second']:.2f} ({min(run['each']):.2f} to {max(run['each']):.2f})",
            f"{run['first_token']:.2f} s",
            f"{1000 * run['per_token']:.2f} ms",
            f"{run['preemptions']:g}",
            _of(compared),
        )
    return made


def summary(report: dict[str, Any]) -> Table:
    """The overview: an arm a row."""
    made = _table(
        "what each arm holds, and each at its own best number of requests at once",
        (
            "arm",
            "images",
            "output",
            "held",
            "prefill, tokens/s",
            "of",
            "per token at 1",
            "of",
            "best tokens/s",
            "of bests",
        ),
    )
    for row in report["overview"]:
        made.add_row(
            row["arm"],
            str(row["images"]),
            _figure(row["output"], "{}"),
            _figure(row["held"], "{}") + "".join(f"\n{of:.2f} {name}" for name, of in row["held_of"].items()),
            _figure(row["prefill"], "{:.0f}"),
            _of(row["prefill_of"]),
            _figure(row["decode"] and 1000 * row["decode"], "{:.2f} ms"),
            _of(row["decode_of"]),
            "-" if row["best"] is None else f"{row['best']:.2f} at {row['best_at']}",
            _of(row["best_of"]),
        )
    return made


def _table(title: str, columns: tuple[str, ...]) -> Table:
    made = Table(title=title)
    for column in columns:
        made.add_column(column, justify="left" if column in ("arm", "of", "throughput, of", "of bests") else "right")
    return made


def _figure(value: Any, form: str) -> str:
    return "-" if value is None else form.format(value)


def _of(ratios: dict[str, list[float]]) -> str:
    """Each reference's ratio with its spread, a line each."""
    return "\n".join(f"{of[0]:.3f} ({of[1]:.3f} to {of[2]:.3f}) {name}" for name, of in ratios.items() if of) or "-"


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
