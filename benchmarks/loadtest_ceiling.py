"""How much one process of `vhserve loadtest` can take before its figures are its own and not the server's.

    python -m benchmarks.loadtest_ceiling [--streams 8,32,128] [--image-size 96] [--seconds 8]

A server that only streams tokens, one every 20 ms to each stream, is loaded with ever more streams: the time per
output token should stay 20 ms; where it does not, the client is late. Beside it, the CPU that the same costs the OpenAI
client, which `vhserve evaluate` and `vhserve demo` use. On two cores the server has the other one.
"""

import argparse
import socket
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from vhserve.child_processes import free_port
from vhserve.evaluation.latency import LatencyLoad, measure
from vhserve.evaluation.results import Server
from vhserve.loadtest.options import LoadtestOptions
from vhserve.loadtest.run import loadtest

PAUSE = 20.0
TOKENS = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="8,32,128")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    table = Table("streams", "client", "tokens/s", "tpot p50, ms", "tpot p99, ms", "core", "CPU ms per request, token")
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.paced_server", str(port), str(PAUSE)])
    try:
        while not _listens(port):
            time.sleep(0.1)
        for streams in map(int, options.streams.split(",")):
            one = loadtest(
                LoadtestOptions.model_validate(
                    {
                        "urls": [url],
                        "concurrency": streams,
                        "duration": options.seconds,
                        "warm_up": 2,
                        "output_tokens": TOKENS,
                        "image_size": options.image_size,
                    }
                )
            ).document.endpoints[0]
            rate, tpot = one.figures.output_tokens_per_second, one.figures.tpot
            if tpot is None:
                raise SystemExit(f"nothing succeeded: {one.errors}")
            table.add_row(*_cells(streams, "locust", rate, tpot.p50, tpot.p99, one.client.cpu_mean))
            load = LatencyLoad(streams, 2 * streams, 0, TOKENS, image_size=options.image_size)
            spent, wall = time.process_time(), time.perf_counter()
            found = measure(Server(base_url=url, model="m"), load)
            cpu = (time.process_time() - spent) / (time.perf_counter() - wall)
            if found.tpot_ms is None:
                raise SystemExit(f"nothing succeeded: {found.first_error}")
            p50, p90 = found.tpot_ms.p50 / 1000, found.tpot_ms.p90 / 1000
            table.add_row(*_cells(streams, "openai (p90)", found.output_tokens_per_second, p50, p90, cpu))
    finally:
        server.terminate()
        server.wait()
    Console(width=110).print(table)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _cells(streams: int, client: str, rate: float, p50: float, high: float, cpu: float) -> list[str]:
    per_token = 1000 * cpu / rate
    return [
        *(str(streams), client, f"{rate:,.0f}", f"{1000 * p50:.1f}", f"{1000 * high:.1f}", f"{cpu:.0%}"),
        f"{per_token * TOKENS:.2f}, {per_token:.3f}",
    ]


if __name__ == "__main__":
    main()
