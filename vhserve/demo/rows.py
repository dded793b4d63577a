"""The report's rows: what is shown of every arm, in words, and how an arm compares with the first.

The one place that words figures, for the terminal and for the page. Knows no layout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calibrate.datasets.families import ALL
from vhserve.demo.results import DemoArmResult, DemoResults
from vhserve.evaluation.latency import LatencyFigures, Quantiles
from vhserve.evaluation.results import AccuracyFigures, Paired
from vhserve.evaluation.tables import difference, interval

NONE = "-"


@dataclass(frozen=True)
class ArmRow:
    """A figure: one cell for each arm, then one for each arm but the first, which says how it compares."""

    label: str
    cells: tuple[str, ...]
    against: tuple[str, ...]
    strong: bool = False


@dataclass(frozen=True)
class ArmSection:
    """Rows that belong together."""

    title: str
    rows: tuple[ArmRow, ...]


def sections(results: DemoResults) -> list[ArmSection]:
    """Word everything that was measured: accuracy, KV cache, then latency for each concurrency."""
    arms = results.arms
    return [
        ArmSection("Accuracy [95%]", tuple(_accuracy(results))),
        ArmSection(f"KV cache, {results.kv_cache_gib:g} GiB", tuple(_cache(arms, results.heads_together))),
        *(
            ArmSection("Latency, " + _streams(one.concurrency), tuple(_latency(arms, one.concurrency)))
            for one in arms[0].latency
        ),
        ArmSection("Server", (_row("seconds until ready", arms, lambda arm: arm.startup_seconds, "{:.0f}"),)),
    ]


def _streams(concurrency: int) -> str:
    return "1 stream" if concurrency == 1 else f"{concurrency} streams"


def _accuracy(results: DemoResults) -> list[ArmRow]:
    rows = []
    for family in [figures.family for figures in results.arms[0].accuracy.figures]:
        cells = tuple(interval(_of_family(arm, family)) for arm in results.arms)
        against = tuple(difference(_pair(results, arm, family)) for arm in results.arms[1:])
        label = "all families" if family == ALL else family
        rows.append(ArmRow(label, cells, against, strong=family == ALL))
    counted = [_of_family(arm, ALL) for arm in results.arms]
    paired = [_pair(results, arm, ALL) for arm in results.arms[1:]]
    flips = tuple(f"{one.only_first} lost, {one.only_second} won" if one else NONE for one in paired)
    rows.append(ArmRow("right / answered", _of_each(counted, lambda one: f"{one.correct} / {one.answered}"), flips))
    exact = tuple(NONE if one is None or one.p is None else f"{one.p:.3g}" for one in paired)
    rows.append(ArmRow("McNemar's exact p", ("",) * len(counted), exact))
    if any(one and (one.off_list or one.errors) for one in counted):
        cells = _of_each(counted, lambda one: f"{one.off_list} / {one.errors}")
        rows.append(ArmRow("off list / failed", cells, ("",) * len(paired)))
    return rows


def _of_each(found: Sequence[AccuracyFigures | None], word: Callable[[AccuracyFigures], str]) -> tuple[str, ...]:
    return tuple(NONE if one is None else word(one) for one in found)


def _of_family(arm: DemoArmResult, family: str) -> AccuracyFigures | None:
    return next((one for one in arm.accuracy.figures if one.family == family), None)


def _pair(results: DemoResults, arm: DemoArmResult, family: str) -> Paired | None:
    first = results.arms[0].name
    return next(
        (one for one in results.paired if (one.first, one.second, one.family) == (first, arm.name, family)), None
    )


def _cache(arms: Sequence[DemoArmResult], size: int) -> list[ArmRow]:
    treatments = list(dict.fromkeys(treatment for arm in arms for treatment in arm.heads))
    shown = [treatment for treatment in treatments if any(arm.heads.get(treatment) for arm in arms)]
    heads = tuple(
        ", ".join(f"{arm.heads.get(name, 0) // size} {name.replace('_', '-')}" for name in shown) for arm in arms
    )
    marks = {"server": "", "plan": " (computed)"}
    per_token = tuple(f"{arm.kv_bytes_per_token:,.0f}{marks[arm.kv_bytes_source]}" for arm in arms)
    factors = _factors([arm.kv_bytes_per_token for arm in arms])
    return [
        ArmRow("heads" if size == 1 else f"KV groups of {size} query heads", heads, ("",) * (len(arms) - 1)),
        ArmRow("bytes per text token", per_token, factors),
        _row("capacity in text tokens", arms, lambda arm: arm.capacity_tokens, "{:,}"),
        _row("capacity in image prompts", arms, lambda arm: arm.capacity_image_prompts, "{:.1f}", strong=True),
    ]


def _latency(arms: Sequence[DemoArmResult], concurrency: int) -> list[ArmRow]:
    def at(arm: DemoArmResult) -> LatencyFigures | None:
        return next((one for one in arm.latency if one.concurrency == concurrency), None)

    found = [at(arm) for arm in arms]
    rows = [
        _quantile_row("TTFT ms, median (p90)", [one.ttft_ms if one else None for one in found]),
        _quantile_row("TPOT ms, median (p90)", [one.tpot_ms if one else None for one in found]),
        ArmRow(
            "output tokens per second",
            tuple(f"{one.output_tokens_per_second:.1f}" if one else NONE for one in found),
            _factors([one.output_tokens_per_second if one else None for one in found]),
        ),
    ]
    if any(one and one.failed for one in found):
        cells = tuple(str(one.failed) if one else NONE for one in found)
        rows.append(ArmRow("failed requests", cells, ("",) * (len(arms) - 1)))
    return rows


def _quantile_row(label: str, quantiles: Sequence[Quantiles | None]) -> ArmRow:
    cells = tuple(f"{one.p50:.1f} ({one.p90:.1f})" if one else NONE for one in quantiles)
    return ArmRow(label, cells, _factors([one.p50 if one else None for one in quantiles]))


def _row(
    label: str,
    arms: Sequence[DemoArmResult],
    value: Callable[[DemoArmResult], float | None],
    form: str,
    strong: bool = False,
) -> ArmRow:
    values = [value(arm) for arm in arms]
    cells = tuple(NONE if one is None else form.format(one) for one in values)
    return ArmRow(label, cells, _factors(values), strong)


def _factors(values: Sequence[float | None]) -> tuple[str, ...]:
    first = values[0]
    return tuple(f"{value / first:.3f}x" if value is not None and first else NONE for value in values[1:])
