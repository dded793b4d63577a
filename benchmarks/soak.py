"""A long load on the demo model's server at the highest rate that it sustains: failures, memory, blocks.

    python -m benchmarks.soak --minutes 30 [--rate R] [--plan plan.json] [--out FILE]

Requests are a mix: text, pictures of their own, repeated pictures, some dropped by the client in mid-stream. Without
--rate, the rate comes from a closed loop's throughput, lowered until a short open loop keeps up. Afterwards: did any
request fail that was not refused by policy (503), did the server's processes grow, is every block of the KV cache free?
Exit code 1 when one of the verdicts is bad.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.demo_server import DemoServer, demo_server
from vhserve.evaluation.server_metrics import metrics_text
from vhserve.loadtest.options import LoadtestOptions
from vhserve.loadtest.results import EndpointResult
from vhserve.loadtest.run import loadtest
from vhserve.loadtest.scrape import read_series

MIX = {
    "image_share": 0.6,
    "repeated_share": 0.3,
    "abort_share": 0.1,
    "image_size": 96,
    "output_tokens": 32,
    "max_in_flight": 256,
}
# vLLM's cache of preprocessed pictures holds 4 GiB by default: until it is full, the server grows as it should.
CACHE = ("--mm-processor-cache-gb", "0.05")
GROWTH = 0.02
"""Share by which the last quarter's median memory may exceed the second quarter's: the allocator's breathing."""

MIB = 2**20


class Memory:
    """Samples the memory of a server's processes until stopped: RSS in bytes by process."""

    def __init__(self, every: float) -> None:
        self._every, self._over = every, threading.Event()
        self.seen: dict[str, list[int]] = defaultdict(list)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, list[int]]:
        """Sample no more; returns the samples of every process, and their sum as `all`."""
        self._over.set()
        self._thread.join()
        return dict(self.seen)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    if "locust" in process.cmdline():
                        continue
                    name, used = f"{process.name()} {process.pid}", process.memory_info().rss
                except psutil.Error:  # it has ended meanwhile
                    continue
                self.seen[name].append(used)
                total += used
            self.seen["all"].append(total)


def growth(samples: list[int]) -> float:
    """By how much the last quarter's median exceeds the second quarter's, as a share."""
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) / median(samples[quarter : 2 * quarter] or samples) - 1


def run(server: DemoServer, **options: float) -> EndpointResult:
    """One load test."""
    return loadtest(LoadtestOptions.model_validate({"urls": [server.base_url], **MIX, **options})).document.endpoints[0]


def sustained(server: DemoServer) -> float:
    """The highest of a few rates that an open loop of 20 s keeps up with."""
    rate = run(server, concurrency=16, duration=15, warm_up=8).figures.requests_per_second
    while True:
        rate = round(0.9 * rate, 2)
        tried = run(server, rate=rate, duration=20, warm_up=3)
        seconds = tried.timeline
        late = median([one.in_flight for one in seconds[-8:-2]]) if len(seconds) > 8 else 0
        print(f"{rate} requests/s: {tried.figures.failed} failed, {late} under way near the end", file=sys.stderr)
        if tried.figures.failed == 0 and late <= 8:  # as many as the server runs at a time: the queue stays empty
            return rate
        if rate < 0.05:
            raise SystemExit("no rate is sustained")


def left_over(server: DemoServer) -> dict[str, float]:
    """What the server holds once nothing is asked any more; waits up to 30 s for streams to end."""
    deadline = time.monotonic() + 30
    while True:
        values = read_series(metrics_text(server.base_url))
        held = {name: values[name] for name in ("kv_use", "running", "waiting")}
        if not any(held.values()) or time.monotonic() > deadline:
            return held
        time.sleep(1)


def main() -> None:
    """Load, judge, print and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        with demo_server(Path(scratch) / "server.log", CACHE, options.plan) as server:
            rate = options.rate or sustained(server)
            memory = Memory(every=max(1.0, options.minutes * 60 / 400))
            found = run(server, rate=rate, duration=60 * options.minutes, warm_up=5, requests=1_000_000)
            samples = memory.stop()
            held = left_over(server)

    broken = sum(one.count for one in found.errors if one.kind != "http 503")
    grown = {name: growth(seen) for name, seen in samples.items() if len(seen) > 8}
    verdicts = {
        "no request failed that was not refused": broken == 0,
        "the server's memory did not grow": grown["all"] <= GROWTH,
        "every block is free at the end": held == {"kv_use": 0, "running": 0, "waiting": 0},
    }
    figures = found.figures
    console = Console(width=110)
    console.print(
        f"{rate:g} requests/s for {options.minutes:g} minutes: {figures.requests} requests, {figures.succeeded} "
        f"succeeded, {figures.aborted} aborted, {figures.failed} failed; preemptions {found.server_load.preemptions}, "
        f"KV cache in use up to {100 * (found.server_load.kv_use_max or 0):.0f}%; client {found.client.cpu_mean:.0%} "
        "of a core",
        markup=False,
    )
    for error in found.errors:
        console.print(f"failed: {error.count} x {error.kind}: {error.first}", markup=False)
    for latency in ("ttft", "tpot", "e2e"):
        quantiles = getattr(figures, latency)
        if quantiles is not None:
            console.print(f"{latency}: p50 {quantiles.p50:.3f} s, p90 {quantiles.p90:.3f} s, p99 {quantiles.p99:.3f} s")
    table = Table("process", "second quarter, MiB", "last quarter, MiB", "growth")
    for name, share in grown.items():
        seen = samples[name]
        quarter = len(seen) // 4
        early, late = median(seen[quarter : 2 * quarter]) / MIB, median(seen[-quarter:]) / MIB
        table.add_row(name, f"{early:.0f}", f"{late:.0f}", f"{100 * share:+.2f}%")
    console.print(table)
    for verdict, good in verdicts.items():
        console.print(f"{'yes' if good else 'NO '}  {verdict}")
    if held["kv_use"] or held["running"] or held["waiting"]:
        console.print(f"held at the end: {held}")
    if options.out:
        document = {"rate": rate, "verdicts": verdicts, "memory": samples, "measured": found.model_dump(mode="json")}
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    if not all(verdicts.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
