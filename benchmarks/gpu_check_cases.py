"""The engines of `benchmarks.gpu_check`: which attention, type, KV cache, plan and requests. Judges nothing.

Needs the tests' support folder on the path.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine_host import Round
from engine_prompts import EnginePrompt
from exactness import PROMPTS as EXACT_PROMPTS
from oracle import TinyModel
from tiny_models import make_tiny_llava

from profiles.geometry import ModelGeometry
from profiles.pruning_plan import PruningPlan
from vhserve.engine.checks.kv_offloading import transfer

GEOMETRY: Final = ModelGeometry(layers=6, query_heads=6, kv_heads=3, head_size=64, hidden_size=192, image_tokens=81)


def make_model(path: Path) -> Path:
    """Write the tiny model of `GEOMETRY`; returns its folder."""
    return make_tiny_llava(path, layers=6, query_heads=6, kv_heads=3, head_size=64, hidden=192)


Heads = list[tuple[int, int]]


def _heads(rows: Mapping[int, Any]) -> Heads:
    return [(layer, head) for layer, row in rows.items() for head in row]


def _plan(**treated: Any) -> Callable[[TinyModel], PruningPlan]:
    """The plan with the heads of each treatment, as `Heads`."""
    return lambda model: PruningPlan.manual(model.ref, model.geometry, granularity="kv_group", **treated)


PLANS: Final[Mapping[str, Callable[[TinyModel], PruningPlan]]] = {
    "text-only": _plan(
        text_only=_heads({1: (0, 1), 2: range(6), 3: (2, 3, 4, 5), 4: (0, 1, 2, 3), 5: (2, 3)}),
        removed=[(5, 4), (5, 5)],
    ),
    # From layer 4 on no head sees the image.
    "exit": _plan(text_only=_heads({1: (0, 1), 4: range(6), 5: range(6)})),
    "removed": _plan(removed=_heads({1: (0, 1), 2: range(6), 4: (2, 3)})),
    "evict": _plan(evict=_heads({1: (0, 1), 2: range(6), 4: (2, 3)})),
}

PROMPTS: Final = (*EXACT_PROMPTS, EnginePrompt("<image><image> yes", (1, 4)))
# Four requests that decode leave one token of the budget to the image's prompt: its image tokens come one at a time,
# and enter the graphs of decode steps.
TRICKLE: Final = (
    *[EnginePrompt(f"<s>USER: what is at {place} ? ASSISTANT:") for place in ("a1", "b2", "c3", "a2")],
    PROMPTS[1],
)
ONCE: Final = (Round(PROMPTS, tokens=8),)
TWICE: Final = (Round(PROMPTS, tokens=8), Round(PROMPTS, 8, reset=False))
"""The second time with prefix hits."""
FORGOTTEN: Final = (Round(PROMPTS, tokens=24), Round(PROMPTS, 8))
"""The second time without; replies are long enough for copies of their prompts to be noted as made, on a GPU too."""
LONG: Final = (Round(PROMPTS, tokens=24),)
TRICKLING: Final = (Round(TRICKLE, tokens=300),)

SMALL: Final = {"gpu_memory_utilization": 0.3, "kv_cache_memory_bytes": 2**28, "max_model_len": 1024}
SIZES: Final = {"cudagraph_capture_sizes": [1, 2, 4, 8]}
GRAPHS: Final = {"enforce_eager": False, "compilation_config": SIZES}
DECODE_GRAPHS: Final = {
    "enforce_eager": False,
    "compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", **SIZES},
}
SLOWLY: Final = {"max_num_batched_tokens": 5, "max_num_seqs": 5, "disable_chunked_mm_input": False}
CHUNKS: Final = {"max_num_batched_tokens": 40}


@dataclass(frozen=True)
class Case:
    """One engine with a plan, and one of stock vLLM under the same conditions.

    Attributes
    ----------
    backend
        vLLM's attention backend; empty for the platform's own.
    plan
        Name in `PLANS`.
    offloads
        Whether blocks go to the host's memory, from where the second round loads them.
    patches
        Of the tests' engine host, for the engine with the plan.
    """

    backend: str
    dtype: str
    settings: dict[str, Any] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ONCE
    plan: str = "text-only"
    offloads: bool = False
    patches: tuple[str, ...] = ()

    def engine_settings(self, *, with_plan: bool) -> dict[str, Any]:
        """Keywords of `vllm.LLM`."""
        chosen: dict[str, Any] = {"attention_backend": self.backend} if self.backend else {}
        if self.offloads:
            connector = transfer()
            if not with_plan:  # vLLM's own, which copies as the plan's does
                del connector["kv_connector_module_path"]
            # 31 MiB: on GPUs a file in /dev/shm, where containers often have 64.
            chosen |= {"kv_offloading_size": 0.03, "kv_transfer_config": connector}
        return SMALL | chosen | {"dtype": self.dtype} | self.settings


GPU_CASES: Final[Mapping[str, Case]] = {
    "triton float32 eager": Case("TRITON_ATTN", "float32", rounds=TWICE),
    "triton float32 decode graphs": Case("TRITON_ATTN", "float32", DECODE_GRAPHS, LONG),
    "triton float32 trickle": Case("TRITON_ATTN", "float32", DECODE_GRAPHS | SLOWLY, TRICKLING),
    "flash float16 eager": Case("FLASH_ATTN", "float16", rounds=TWICE),
    "flash float16 graphs, compiled": Case("FLASH_ATTN", "float16", GRAPHS, LONG),
    "flash float16 decode graphs": Case("FLASH_ATTN", "float16", DECODE_GRAPHS, LONG),
    "flash float16 trickle": Case("FLASH_ATTN", "float16", DECODE_GRAPHS | SLOWLY, TRICKLING),
    "flash float16 small chunks": Case("FLASH_ATTN", "float16", CHUNKS),
    # Tiny projections are vLLM's own unless they must not be.
    "flash float16 projections": Case("FLASH_ATTN", "float16", GRAPHS, LONG, patches=("views_always",)),
    "flash float16 exit": Case("FLASH_ATTN", "float16", GRAPHS, LONG, plan="exit", patches=("views_always",)),
    "flash float16 exit trickle": Case("FLASH_ATTN", "float16", GRAPHS | SLOWLY, TRICKLING, plan="exit"),
    "triton float32 exit": Case("TRITON_ATTN", "float32", GRAPHS, TWICE, plan="exit"),
    "flash float16 evict": Case("FLASH_ATTN", "float16", GRAPHS, LONG, plan="evict"),
    "flash float16 offload removed": Case("FLASH_ATTN", "float16", rounds=FORGOTTEN, plan="removed", offloads=True),
    "flash float16 offload text-only": Case("FLASH_ATTN", "float16", GRAPHS, FORGOTTEN, offloads=True),
    "flash float16 offload evict": Case("FLASH_ATTN", "float16", rounds=FORGOTTEN, plan="evict", offloads=True),
    "triton float32 offload text-only": Case("TRITON_ATTN", "float32", rounds=FORGOTTEN, offloads=True),
    # FlashAttention 3 refuses float16 output with FP8 input.
    "flash bfloat16 fp8 cache": Case("FLASH_ATTN", "bfloat16", {"kv_cache_dtype": "fp8"}),
    "triton bfloat16 int8 cache": Case("TRITON_ATTN", "bfloat16", {"kv_cache_dtype": "int8_per_token_head"}),
    "triton bfloat16 int4 cache": Case("TRITON_ATTN", "bfloat16", {"kv_cache_dtype": "int4_per_token_head"}),
}

CPU_CASES: Final[Mapping[str, Case]] = {
    "cpu float32 eager": Case("", "float32"),
    "cpu float32 small chunks": Case("", "float32", CHUNKS),
    "cpu bfloat16 eager": Case("", "bfloat16"),
    "cpu float32 evict": Case("", "float32", plan="evict"),
    "cpu float32 exit": Case("", "float32", plan="exit"),
    "cpu float32 offload removed": Case("", "float32", rounds=FORGOTTEN, plan="removed", offloads=True),
    "cpu float32 offload text-only": Case("", "float32", rounds=FORGOTTEN, offloads=True),
}
