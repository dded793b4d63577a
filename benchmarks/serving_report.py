"""What `benchmarks.serving` makes of its turns: medians, ratios of arms, each arm's best, and a line for each turn.

A turn is one arm's run of a workload, as a dictionary. Does not know engines, tables or plots.
"""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import arm_names

Turn = dict[str, Any]
Row = dict[str, Any]
Cell = tuple[int, int, int]
"""Images, reply tokens and requests at once."""


def update(report: dict[str, Any]) -> None:
    """Set a report's `runs` and `overview` to what its turns say by now."""
    report["runs"] = summaries(report["turns"], report["references"])
    report["overview"] = overview(report)


def summaries(turns: list[Turn], references: list[str]) -> list[Row]:
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
        others = {one: cells[cell, one] for one in references_of(arm, references) if (cell, one) in cells}
        made.append(
            _summary(arm, cell, own) | {"ratios": {name: ratios(own, theirs) for name, theirs in others.items()}}
        )
    return made


def references_of(arm: str, references: Iterable[str]) -> list[str]:
    """The arms that one is compared with: not itself, and stock vLLM with no plan."""
    stock = arm_names.parse(arm).is_stock
    return [one for one in references if one != arm and (arm_names.parse(one).is_stock or not stock)]


def _summary(arm: str, cell: Cell, turns: list[Turn]) -> Row:
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
        "most_held": max(turn["most_held"] for turn in turns),
    }


def rate(turn: Turn) -> float:
    """Output tokens a second."""
    return float(turn["output_tokens"] / turn["seconds"])


def prefill_rate(turn: Turn) -> float:
    """Prompt tokens a second, of prompts alone."""
    return float(turn["prompt_tokens"] / turn["seconds"])


def median_of(turn: Turn, figure: str) -> float:
    """Of the requests' own figures; 0 where replies have no second token."""
    return statistics.median(turn[figure]) if turn[figure] else 0.0


def ratio(own: Iterable[Turn], theirs: Iterable[Turn], figure: Callable[[Turn], float]) -> list[float]:
    """The ratio of medians, and the least and greatest within a repeat; empty without a repeat that both have."""
    by_repeat = {turn["repeat"]: figure(turn) for turn in theirs}
    each = [(figure(turn), by_repeat[turn["repeat"]]) for turn in own if by_repeat.get(turn["repeat"])]
    if not each:
        return []
    within = sorted(a / b for a, b in each)
    middle = statistics.median(a for a, _ in each) / statistics.median(b for _, b in each)
    return [middle, within[0], within[-1]]


def ratios(own: list[Turn], theirs: list[Turn]) -> dict[str, list[float]]:
    """Of throughput and time per token."""
    return {
        "throughput": ratio(own, theirs, rate),
        "per_token": ratio(own, theirs, lambda turn: median_of(turn, "per_token")),
    }


def overview(report: dict[str, Any]) -> list[Row]:
    """A row for every arm, number of images and length of reply: what it holds, and how fast it is at what.

    Each figure is `None`, and each ratio missing, where it was not measured:

    - `held`: requests that the KV cache holds at once with their prompt computed; `held_of` its ratios
    - `prefill`: prompt tokens a second, median; `prefill_of`
    - `decode`: seconds for an output token of one request at a time, median; `decode_of`
    - `best`: output tokens a second at `best_at`, the number of requests at once where their median is greatest;
      `best_of`, to each reference at its own best

    Ratios are by the name of the reference: the ratio of medians, and the least and greatest within a repeat.
    """
    cells = {(one["images"], one["output"]): None for one in report["turns"]}
    cells |= {(one["images"], None): None for one in (*report["capacity"], *report["prefill"])} if not cells else {}
    return [_overview(report, arm, images, output) for images, output in cells for arm in report["arms"]]


def _overview(report: dict[str, Any], arm: str, images: int, output: int | None) -> Row:
    held = {one["arm"]: one["requests"] for one in report["capacity"] if one["images"] == images}
    prefills = [one for one in report["prefill"] if one["images"] == images]
    runs = [one for one in report["runs"] if (one["images"], one["output"]) == (images, output)]
    best = {run["arm"]: run for run in sorted(runs, key=_goodness)}

    def turns(of: str, concurrency: int) -> list[Turn]:
        cell = (of, images, output, concurrency)
        return [one for one in report["turns"] if (one["arm"], *_cell(one)) == cell]

    def prefill(of: str) -> list[Turn]:
        return [one for one in prefills if one["arm"] == of]

    def per_token(turn: Turn) -> float:
        return median_of(turn, "per_token")

    others = references_of(arm, report["references"])
    ones = turns(arm, 1)
    row: Row = {"arm": arm, "images": images, "output": output, "held": held.get(arm)}
    row["held_of"] = {name: held[arm] / held[name] for name in others if held.get(name) and arm in held}
    row["prefill"] = statistics.median(map(prefill_rate, prefill(arm))) if prefill(arm) else None
    row["prefill_of"] = {name: ratio(prefill(arm), prefill(name), prefill_rate) for name in others if prefill(name)}
    row["decode"] = statistics.median(map(per_token, ones)) if ones else None
    row["decode_of"] = {name: ratio(ones, turns(name, 1), per_token) for name in others if ones and turns(name, 1)}
    row |= {"best": None, "best_at": None, "best_of": {}}
    if own := best.get(arm):
        row |= {"best": own["tokens_per_second"], "best_at": own["concurrency"]}
        mine = turns(arm, own["concurrency"])
        row["best_of"] = {
            name: ratio(mine, turns(name, best[name]["concurrency"]), rate) for name in others if name in best
        }
    for figure in ("prefill_of", "decode_of", "best_of"):
        row[figure] = {name: of for name, of in row[figure].items() if of}
    return row


def _goodness(run: Row) -> tuple[float, int]:
    return float(run["tokens_per_second"]), -int(run["concurrency"])


def _cell(turn: Turn) -> Cell:
    return turn["images"], turn["output"], turn["concurrency"]


def describe_turn(turn: Turn) -> str:
    return (
        f"{turn['arm']:>16}  images {turn['images']}  output {turn['output']}  concurrency "
        f"{turn['concurrency']:>3}  turn {turn['repeat'] + 1}: {rate(turn):8.2f} tokens/s  first token "
        f"{median_of(turn, 'first_token'):6.2f} s  {1000 * median_of(turn, 'per_token'):6.1f} ms/token  "
        f"preemptions {turn['preemptions']}  held at once {turn['most_held']}  {turn['seconds']:.0f} s"
    )


def describe_prefill(turn: Turn) -> str:
    return (
        f"{turn['arm']:>16}  images {turn['images']}  {turn['requests']} prompts  turn {turn['repeat'] + 1}: "
        f"{prefill_rate(turn):8.0f} prompt tokens/s  {turn['seconds']:.2f} s in {turn['steps']} steps"
    )


def describe_capacity(counted: dict[str, Any]) -> str:
    end = "the next found no room" if counted["full"] else "all that were sent"
    each = f"{statistics.median(counted['blocks']):g} blocks each" if counted["blocks"] else "none"
    return (
        f"{counted['arm']:>16}  images {counted['images']}: {counted['requests']} requests held with their prompts "
        f"computed, {each}, {counted['free']} of {counted['usable']} blocks free; {end}"
    )
