"""The main thing that the demo found: one sentence and three figures of the second arm beside the first.

Owns what is said first. The tables that say all of it are `rows`'. Knows no layout.
"""

from dataclasses import dataclass

from calibrate.datasets.families import ALL
from vhserve.demo.results import DemoArmResult, DemoResults
from vhserve.evaluation.latency import LatencyFigures
from vhserve.evaluation.results import Paired
from vhserve.evaluation.tables import difference

UNKNOWN = "unknown"


@dataclass(frozen=True)
class HeadlineFigure:
    """A figure to write large: its value, what it is, and what it rests on."""

    value: str
    label: str
    about: str


@dataclass(frozen=True)
class Headline:
    """The sentence, and the figures: answers kept, requests that fit, time per token."""

    sentence: str
    figures: tuple[HeadlineFigure, HeadlineFigure, HeadlineFigure]


def headline(results: DemoResults) -> Headline | None:
    """What the second arm comes to beside the first; None where there is no second."""
    if len(results.arms) < 2:
        return None
    first, second, *others = results.arms
    kept, fits, slower = _kept(results, second), _fits(first, second), _slower(first, second)
    treated = sum(count for treatment, count in second.heads.items() if treatment != "full")
    found = [
        *([] if kept is None else [f"{results.model} keeps {_share(kept)} of the answers that it gets right without"]),
        *([] if fits is None else [f"{_times(fits)} as many requests with an image fit into the same memory"]),
        *([] if slower is None else [f"a token takes {_times(slower)} as long"]),
    ]
    words = " and ".join(", ".join(found).rsplit(", ", 1)) if found else "nothing could be measured"
    size = results.heads_together
    heads = "heads" if size == 1 else "KV groups"
    sentence = f"With {treated // size} of {sum(second.heads.values()) // size} {heads} pruned, {words}."
    if others and (control := _kept(results, others[0])) is not None:
        sentence += f" As many {heads} chosen at random keep {_share(control)}."
    figures = (
        HeadlineFigure(_share(kept), "answers kept", _about_answers(results, second)),
        HeadlineFigure(_times(fits), "requests that fit", _about_requests(results, first, second)),
        HeadlineFigure(_times(slower), "time per token", _about_time(first, second)),
    )
    return Headline(sentence, figures)


def _pair(results: DemoResults, arm: DemoArmResult) -> Paired | None:
    first = results.arms[0].name
    return next((one for one in results.paired if (one.first, one.second, one.family) == (first, arm.name, ALL)), None)


def _kept(results: DemoResults, arm: DemoArmResult) -> float | None:
    """Share of the first arm's right answers that are right in this arm, too."""
    pair = _pair(results, arm)
    right = 0 if pair is None else pair.both + pair.only_first
    return None if pair is None or not right else pair.both / right


def _fits(first: DemoArmResult, second: DemoArmResult) -> float | None:
    return _ratio(first.capacity_image_prompts, second.capacity_image_prompts)


def _slower(first: DemoArmResult, second: DemoArmResult) -> float | None:
    return _ratio(_token_ms(first), _token_ms(second))


def _ratio(first: float | None, second: float | None) -> float | None:
    return None if not first or second is None else second / first


def _busiest(arm: DemoArmResult) -> LatencyFigures | None:
    return max(arm.latency, key=lambda one: one.concurrency, default=None)


def _token_ms(arm: DemoArmResult) -> float | None:
    found = _busiest(arm)
    return None if found is None or found.tpot_ms is None else found.tpot_ms.p50


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def _times(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f} times"


def _about_answers(results: DemoResults, arm: DemoArmResult) -> str:
    pair = _pair(results, arm)
    if pair is None:
        return ""
    return (
        f"{pair.both} of {pair.both + pair.only_first} right answers; {pair.only_second} others are right only now; "
        f"accuracy {difference(pair)} points"
    )


def _about_requests(results: DemoResults, first: DemoArmResult, second: DemoArmResult) -> str:
    if first.capacity_image_prompts is None or second.capacity_image_prompts is None:
        return "the server did not report it"
    return (
        f"{second.capacity_image_prompts:.1f} instead of {first.capacity_image_prompts:.1f} prompts with an image, "
        f"in {results.kv_cache_gib:g} GiB of KV cache"
    )


def _about_time(first: DemoArmResult, second: DemoArmResult) -> str:
    before, now, busiest = _token_ms(first), _token_ms(second), _busiest(second)
    if before is None or now is None or busiest is None:
        return "no request succeeded"
    streams = "1 stream" if busiest.concurrency == 1 else f"{busiest.concurrency} streams"
    return f"{now:.1f} ms instead of {before:.1f} ms, medians, {streams}"
