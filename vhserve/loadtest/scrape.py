"""The server's metrics under load: `/metrics` read once a second while requests are sent.

Owns the names of vLLM's series. Runs in a thread of the process that waits, not in one that sends.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from vhserve.evaluation.server_metrics import MetricsPage
from vhserve.loadtest.results import ServerLoad

EVERY = 1.0
"""Seconds between two readings."""

_SERIES = {
    "vllm:num_preemptions_total": "preemptions",
    "vllm:kv_cache_usage_perc": "kv_use",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:prefix_cache_queries_total": "queried",
    "vllm:prefix_cache_hits_total": "hit",
}


@dataclass(frozen=True)
class Scrape:
    """One reading: when (`time.monotonic`), and values by name; of all engines, but `kv_use` of the fullest."""

    at: float
    values: dict[str, float]


def read_series(text: str) -> dict[str, float]:
    """Values of vLLM's series in the text of `/metrics`, by our names."""
    # Histograms make the page long, and parsing it costs more than reading it: only our lines are parsed.
    lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] in _SERIES]
    values: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                name, value = _SERIES[sample.name], float(sample.value)
                values[name] = max(values.get(name, 0.0), value) if name == "kv_use" else values.get(name, 0.0) + value
    except (ValueError, KeyError, IndexError):  # a page that is no metrics page
        return {}
    return values


class Scraper:
    """Reads `/metrics` beside an endpoint until `stop` is called."""

    def __init__(self, base_url: str) -> None:
        self._page = MetricsPage(base_url)
        self._over = threading.Event()
        self._scrapes: list[Scrape] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[Scrape]:
        """Read once more and return everything; to be called once."""
        self._over.set()
        self._thread.join()
        self._read()
        self._page.close()
        return self._scrapes

    def _run(self) -> None:
        while not self._over.is_set():
            self._read()
            self._over.wait(EVERY)

    def _read(self) -> None:
        at = time.monotonic()
        values = read_series(self._page.text())
        if values:
            self._scrapes.append(Scrape(at, values))


def server_load(turns: Sequence[Sequence[Scrape]], since: Sequence[float]) -> ServerLoad:
    """Summarise the readings of all turns.

    Parameters
    ----------
    turns
        Readings of each turn, in order of time.
    since
        When each turn's measuring began; counters rise from the last reading before.
    """
    rises = dict.fromkeys(("preemptions", "queried", "hit"), 0.0)
    reported = set()
    gauges: dict[str, list[float]] = {name: [] for name in ("kv_use", "running", "waiting")}
    for scrapes, start in zip(turns, since, strict=True):
        measured = [one for one in scrapes if one.at >= start]
        before = [one for one in scrapes if one.at < start]
        for name in rises:
            values = [one.values[name] for one in (*before[-1:], *measured) if name in one.values]
            # A server that was started again counts from zero.
            rises[name] += sum(max(0.0, late - early) for early, late in pairwise(values))
            reported |= {name} if values else set()
        for name, seen in gauges.items():
            seen += [one.values[name] for one in measured if name in one.values]
    return ServerLoad(
        scrapes=sum(map(len, turns)),
        preemptions=rises["preemptions"] if "preemptions" in reported else None,
        kv_use_mean=sum(gauges["kv_use"]) / len(gauges["kv_use"]) if gauges["kv_use"] else None,
        kv_use_max=max(gauges["kv_use"], default=None),
        running_max=max(gauges["running"], default=None),
        waiting_max=max(gauges["waiting"], default=None),
        prefix_hit_share=rises["hit"] / rises["queried"] if rises["queried"] else None,
    )
