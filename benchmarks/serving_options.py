"""Flags of benchmarks that start engines of dummy weights. Does not know what is done with them."""

import argparse
from pathlib import Path

from benchmarks import arm_names, sizes


def parser(description: str | None = None) -> argparse.ArgumentParser:
    """Of `python -m benchmarks.serving`."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=description)
    sizes.add_flags(made)
    add_engine_flags(made, arms="stock,text-only:0.75,evict:0.75,evict:1")
    made.add_argument("--concurrency", type=sizes.numbers, default="1,8,32", help="comma list; 0 for none")
    made.add_argument("--images", type=sizes.numbers, default="1", help="comma list of images in a prompt")
    made.add_argument("--output", type=sizes.numbers, default="64", help="comma list of tokens to generate")
    made.add_argument("--text-tokens", type=int, default=70)
    made.add_argument("--requests", type=int, help="of each turn; twice the concurrency by default")
    made.add_argument("--repeats", type=int, default=3, help="passes through all concurrencies")
    made.add_argument(
        "--give-up",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="an arm that is slower than this share of its best is not measured at more requests at once",
    )
    add_time_flag(made)
    made.add_argument("--capacity", action="store_true", help="also count the requests that the KV cache holds at once")
    made.add_argument(
        "--prefill", type=int, default=0, metavar="PROMPTS", help="also time prompts alone, so many in a turn"
    )
    made.add_argument("--out", type=Path, default=Path("benchmark"), help="path without suffix")
    return made


def add_time_flag(made: argparse.ArgumentParser) -> None:
    """Add the flag that `deadline` reads."""
    made.add_argument("--seconds", type=float, help="begin no turn after these, which the engines' start is part of")


def add_engine_flags(made: argparse.ArgumentParser, arms: str) -> None:
    """Add the flags that `engines.start` reads, but for those of the prompts."""
    made.add_argument("--arms", type=arm_names.parse_list, default=arms, help=arm_names.HELP)
    made.add_argument("--threads", type=int, help="of each engine on CPUs; vLLM's default if not given")
    made.add_argument("--cpu-time", action="store_true", help="seconds of CPU, for busy machines; with --threads 1")
    made.add_argument("--kv-gib", type=float, default=0.5, help="KV cache of each arm")
    made.add_argument("--dtype", default="bfloat16")
    made.add_argument("--block-size", type=int, help="vLLM's default: 16 on GPUs; 32 on CPUs")
    made.add_argument("--max-model-len", type=int, help="the longest workload by default")
    made.add_argument("--max-num-seqs", type=int, default=128)
    made.add_argument("--max-num-batched-tokens", type=int)
    made.add_argument("--watermark", type=float, default=0.0, help="share of the KV cache kept free at admission")
    made.add_argument("--eager", action="store_true", help="neither torch.compile nor CUDA graphs")
    made.add_argument("--attention-backend", help="as vLLM calls it")
    made.add_argument("--gpu-memory", type=float, default=0.3, help="share of the GPU for each arm")
