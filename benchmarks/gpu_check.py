"""Is the text-only backend exact on this GPU, and what does a decode step cost? One command, some minutes, offline:

    python -m benchmarks.gpu_check --out gpu_check

First a tiny random model with each attention backend, eager and with CUDA graphs, against transformers with the same
heads masked; then `benchmarks.serving` with a 7B model's geometry. Needs the tests' folder beside this one.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import offline

sys.path.insert(0, str(offline.ROOT / "tests" / "support"))

from profiles.torchvision_import import ensure_torchvision

ensure_torchvision()  # before transformers

from engine_cases import worst_difference  # noqa: E402
from engine_host import EngineHost, EnginePrompt, Job, Round  # noqa: E402
from exactness import PROMPTS as EXACT_PROMPTS  # noqa: E402
from oracle import Oracle  # noqa: E402
from tiny_models import make_tiny_llava  # noqa: E402

from benchmarks import serving  # noqa: E402
from profiles.fingerprint import model_revision  # noqa: E402
from profiles.geometry import ModelGeometry, ModelRef  # noqa: E402
from profiles.pruning_plan import PruningPlan  # noqa: E402

GEOMETRY = ModelGeometry(layers=6, query_heads=6, kv_heads=3, head_size=64, hidden_size=192, image_tokens=81)
TEXT_ONLY = [(1, (0, 1)), (2, range(6)), (3, (2, 3, 4, 5)), (4, (0, 1, 2, 3)), (5, (2, 3))]
REMOVED = [(5, (4, 5))]

PROMPTS = (*EXACT_PROMPTS, EnginePrompt("<image><image> yes", (1, 4)))
# Four requests that decode leave one token of the budget to the image's prompt: its image tokens come one at a time,
# and enter the graphs of decode steps.
TRICKLE = (
    *[EnginePrompt(f"<s>USER: what is at {place} ? ASSISTANT:") for place in ("a1", "b2", "c3", "a2")],
    PROMPTS[1],
)

GRAPHS = {"enforce_eager": False, "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8]}}
DECODE_GRAPHS = {
    "enforce_eager": False,
    "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4, 8]},
}
SLOWLY = {"max_num_batched_tokens": 5, "max_num_seqs": 5, "disable_chunked_mm_input": False}

CASES: dict[str, tuple[str, str, dict[str, Any], tuple[Round, ...]]] = {
    "triton float32 eager": ("TRITON_ATTN", "float32", {}, (Round(PROMPTS, tokens=8), Round(PROMPTS, 8, reset=False))),
    "triton float32 decode graphs": ("TRITON_ATTN", "float32", DECODE_GRAPHS, (Round(PROMPTS, tokens=24),)),
    "triton float32 trickle": ("TRITON_ATTN", "float32", DECODE_GRAPHS | SLOWLY, (Round(TRICKLE, tokens=300),)),
    "flash float16 eager": ("FLASH_ATTN", "float16", {}, (Round(PROMPTS, tokens=8), Round(PROMPTS, 8, reset=False))),
    "flash float16 graphs, compiled": ("FLASH_ATTN", "float16", GRAPHS, (Round(PROMPTS, tokens=24),)),
    "flash float16 decode graphs": ("FLASH_ATTN", "float16", DECODE_GRAPHS, (Round(PROMPTS, tokens=24),)),
    "flash float16 trickle": ("FLASH_ATTN", "float16", DECODE_GRAPHS | SLOWLY, (Round(TRICKLE, tokens=300),)),
    "flash float16 fp8 cache": ("FLASH_ATTN", "float16", {"kv_cache_dtype": "fp8"}, (Round(PROMPTS, tokens=8),)),
    "flash float16 small chunks": ("FLASH_ATTN", "float16", {"max_num_batched_tokens": 40}, (Round(PROMPTS, 8),)),
}
SMALL = {"gpu_memory_utilization": 0.3, "kv_cache_memory_bytes": 2**28, "max_model_len": 1024}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu_check"))
    parser.add_argument("--cases", default="", help="only cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=330, help="start no further case of exactness after these")
    parser.add_argument("--no-timing", action="store_true")
    parser.add_argument("--no-exactness", action="store_true")
    parser.add_argument("timing", nargs="*", help="arguments for benchmarks.serving instead of those here")
    args = parser.parse_args(argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    failed = [] if args.no_exactness else exactness(args)
    if not args.no_timing:
        serving.main([*(args.timing or TIMING), "--out", str(args.out.with_name(args.out.name + "_serving"))])
    return 1 if failed else 0


TIMING = [
    *(
        "--model",
        "llava-1.5-7b",
        "--arms",
        "stock,text-only:0.75,evict:0.75",
        "--concurrency",
        "1,16,64",
        "--images",
        "1",
    ),
    *("--output", "64", "--repeats", "2", "--kv-gib", "6", "--gpu-memory", "0.3", "--max-num-seqs", "128"),
    "--capacity",
]


def exactness(args: argparse.Namespace) -> list[str]:
    """Run the cases; the names of those whose difference is not what their arithmetic explains."""
    failed, report, begun = [], {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vhserve-gpu-") as scratch:
        folder = Path(scratch)
        model = make_tiny_llava(folder / "tiny", layers=6, query_heads=6, kv_heads=3, head_size=64, hidden=192)
        ref = ModelRef(name=str(model), revision=model_revision(model), architecture="LlavaForConditionalGeneration")
        pairs = [[(layer, head) for layer, row in rows for head in row] for rows in (TEXT_ONLY, REMOVED)]
        plan = PruningPlan.manual(ref, GEOMETRY, text_only=pairs[0], removed=pairs[1], granularity="kv_group")
        unpruned = PruningPlan.unpruned(ref, GEOMETRY)
        oracle = Oracle(model)
        environment = offline.environment(folder / "plugin") | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        sys.path.append(str(folder / "plugin"))  # the host takes its path from this process
        host = EngineHost(folder, environment)
        try:
            for name, (backend, dtype, settings, rounds) in CASES.items():
                if args.cases not in name or time.monotonic() - begun > args.seconds:
                    continue
                given = SMALL | {"attention_backend": backend, "dtype": dtype} | settings
                row: dict[str, Any] = {}
                for arm, used in (("plan", plan), ("stock", None)):
                    if arm == "stock" and dtype == "float32":
                        continue  # its own bound is known
                    outcome = host.run(Job(str(model), used and used.model_dump(mode="json"), rounds, given))
                    if outcome.failure:
                        row[arm] = f"{outcome.failure[0]}: {outcome.failure[1][-600:]}"
                        continue
                    row[arm] = worst_difference(oracle, used or unpruned, rounds, outcome.answers)
                row["exact"] = judge(row, dtype)
                report[name] = row
                failed += [] if row["exact"] else [name]
                print(f"{time.monotonic() - begun:5.0f} s  {name}: {row}", flush=True)
        except AssertionError as error:
            failed.append("host")
            print(error, flush=True)
        finally:
            host.close()
            args.out.with_name(args.out.name + "_host.log").write_bytes(host.log.read_bytes()[-400_000:])
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    print("exact in every case" if not failed else f"NOT exact: {', '.join(failed)}", flush=True)
    return failed


def judge(row: dict[str, Any], dtype: str) -> bool:
    """Float32 within 1e-4 (kernels sum in another order); halves within 1.5 times what stock vLLM is off by."""
    if isinstance(row["plan"], str):
        return False
    if dtype == "float32":
        return bool(row["plan"] < 1e-4)
    return not isinstance(row["stock"], str) and bool(row["plan"] < 1.5 * row["stock"] + 1e-3)


if __name__ == "__main__":
    raise SystemExit(main())
