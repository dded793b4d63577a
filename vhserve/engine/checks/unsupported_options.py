"""vLLM options that cannot be combined with a plan, one row each.

Owns the table and both checks of it: on the parsed command line, before anything is loaded, and on vLLM's
configuration inside the engine, for users who start vLLM without `vhserve serve`. Does not know plans.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from vhserve.engine.checks.kv_offloading import is_other_transfer
from vhserve.errors import FlagRefused

_LOAD_FORMATS: Final = ("auto", "hf", "safetensors", "pt", "npcache", "fastsafetensors", "runai_streamer", "dummy")
"""Formats whose loaders pass each full tensor to the weight loader of the module that keeps part of it."""

BACKENDS: Final = ("CPU_ATTN", "FLASH_ATTN", "TRITON_ATTN")
"""vLLM's attention backends that size their buffers by a layer's own heads, not by the model's."""

KV_CACHE_TYPES: Final = (
    "auto",
    "float16",
    "bfloat16",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "int4_per_token_head",
    "int8_per_token_head",
    "fp8_per_token_head",
)
"""Values of vLLM's --kv-cache-dtype that these backends have; the last three with Triton only."""

_SPECULATORS: Final = ("ngram", "ngram_gpu", "suffix")
"""Speculative methods without a draft model."""


@dataclass(frozen=True)
class UnsupportedOption:
    """One option of vLLM and the values of it that cannot be combined with a plan.

    Attributes
    ----------
    flag
        Its name on the command line of `vllm serve`.
    argument
        Attribute of the parsed command line.
    setting
        Path of attributes in vLLM's configuration; empty where vLLM keeps none.
    is_unsupported
        Whether a value cannot be served; called with the value of `argument` or of `setting`.
    expected, reason
        For the error: what is expected instead, and why the value cannot be served.
    """

    flag: str
    argument: str
    setting: str
    is_unsupported: Callable[[Any], bool]
    expected: str
    reason: str


def _above_one(value: Any) -> bool:
    return value is not None and value > 1


def _is_set(value: Any) -> bool:
    return bool(value)


def _needs_draft_model(value: Any) -> bool:
    if not value:
        return False
    method = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return str(method).strip("[]") not in _SPECULATORS


def _other_backend(value: Any) -> bool:
    return value is not None and _name(value).upper() not in (*BACKENDS, "AUTO")


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


UNSUPPORTED_OPTIONS: Final = (
    UnsupportedOption(
        "--tensor-parallel-size",
        "tensor_parallel_size",
        "parallel_config.tensor_parallel_size",
        _above_one,
        "1",
        "heads are not laid out per rank yet",
    ),
    UnsupportedOption(
        "--pipeline-parallel-size",
        "pipeline_parallel_size",
        "parallel_config.pipeline_parallel_size",
        _above_one,
        "1",
        "layers of other ranks are not known to the surgery yet",
    ),
    UnsupportedOption(
        "--decode-context-parallel-size",
        "decode_context_parallel_size",
        "parallel_config.decode_context_parallel_size",
        _above_one,
        "1",
        "it splits a KV cache whose layers differ",
    ),
    UnsupportedOption(
        "--prefill-context-parallel-size",
        "prefill_context_parallel_size",
        "parallel_config.prefill_context_parallel_size",
        _above_one,
        "1",
        "it splits a KV cache whose layers differ",
    ),
    UnsupportedOption(
        "--kv-transfer-config",
        "kv_transfer_config",
        "kv_transfer_config",
        is_other_transfer,
        "no KV connector but that of --kv-offloading-size",
        "a shared KV store would mix caches of different plans",
    ),
    UnsupportedOption(
        "--cpu-offload-gb",
        "cpu_offload_gb",
        "offload_config.uva.cpu_offload_gb",
        _is_set,
        "0",
        "vLLM picks the weights to offload before heads are cut out",
    ),
    UnsupportedOption(
        "--offload-group-size",
        "offload_group_size",
        "offload_config.prefetch.offload_group_size",
        _is_set,
        "0",
        "vLLM picks the weights to offload before heads are cut out",
    ),
    UnsupportedOption(
        "--speculative-config",
        "speculative_config",
        "speculative_config",
        _needs_draft_model,
        f"a method without a draft model ({', '.join(_SPECULATORS)})",
        "a draft model's KV cache would share the pruned model's",
    ),
    UnsupportedOption(
        "--spec-model", "spec_model", "", _is_set, "no draft model", "its KV cache would share the pruned model's"
    ),
    UnsupportedOption(
        "--model-impl",
        "model_impl",
        "model_config.model_impl",
        lambda value: value not in (None, "auto", "vllm"),
        "auto or vllm",
        "heads are cut out of vLLM's own implementation",
    ),
    UnsupportedOption(
        "--attention-backend",
        "attention_backend",
        "attention_config.backend",
        _other_backend,
        f"one of {', '.join(BACKENDS)}",
        "it takes all layers to have the same heads",
    ),
    UnsupportedOption(
        "--kv-cache-dtype",
        "kv_cache_dtype",
        "cache_config.cache_dtype",
        lambda value: value is not None and value not in KV_CACHE_TYPES,
        f"one of {', '.join(KV_CACHE_TYPES)}",
        "only other attention backends have it",
    ),
    UnsupportedOption(
        "--load-format",
        "load_format",
        "load_config.load_format",
        lambda value: value is not None and value not in _LOAD_FORMATS,
        f"one of {', '.join(_LOAD_FORMATS)}",
        "its weights bypass the loaders that cut heads out",
    ),
)


def check_arguments(arguments: Any, rows: Sequence[UnsupportedOption] = UNSUPPORTED_OPTIONS) -> None:
    """Check a command line, parsed or as far as it is known, against the table.

    Raises
    ------
    FlagRefused
        For the first row that does not pass.
    """
    _check((row, getattr(arguments, row.argument, None)) for row in rows)


def check_config(vllm_config: Any, rows: Sequence[UnsupportedOption] = UNSUPPORTED_OPTIONS) -> None:
    """Check vLLM's configuration against the table.

    Raises
    ------
    FlagRefused
        For the first row that does not pass.
    """
    _check((row, _value(vllm_config, row.setting)) for row in rows if row.setting)


def _value(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def _check(found: Iterable[tuple[UnsupportedOption, Any]]) -> None:
    for row, value in found:
        if row.is_unsupported(value):
            shown = _name(value) if isinstance(value, bool | int | float | str | Enum) else "given"
            raise FlagRefused(
                f"{row.flag} ({shown}) does not go together with a plan: {row.reason}",
                expected=row.expected,
                fix=f"change {row.flag}, or serve without --plan",
            )
