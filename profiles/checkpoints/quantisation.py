"""Whether a checkpoint's weights are quantised, and how, by its configuration.

Knows every place where AWQ, GPTQ, bitsandbytes, FP8 and compressed-tensors checkpoints say so. Does not know what can
be done with such weights.
"""

from collections.abc import Iterator
from typing import Any, Final

from profiles.checkpoints.configuration import Json
from profiles.errors import ModelQuantised

_KEYS: Final = ("quantization_config", "compression_config")
_SCHEMES: Final = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "bitsandbytes": "bitsandbytes",
    "bnb": "bitsandbytes",
    "fp8": "FP8",
    "compressed-tensors": "compressed-tensors",
}


def find_quantisation(config: Json) -> str | None:
    """How weights are quantised, such as `AWQ, 4 bits (text_config.quantization_config in config.json)`, or None.

    Parameters
    ----------
    config
        Content of `config.json`; the configurations inside it, such as `text_config`, are looked at too.
    """
    for place, scheme in _entries(config, ""):
        return f"{_in_words(scheme)} ({place} in config.json)"
    return None


def check_unquantised(name: str, config: Json, *, fix: str) -> None:
    """Refuse a checkpoint with quantised weights.

    Parameters
    ----------
    name
        The model as the user called it.
    fix
        What to do instead.

    Raises
    ------
    ModelQuantised
    """
    found = find_quantisation(config)
    if found is not None:
        raise ModelQuantised(f"the weights of {name} are quantised: {found}", expected="unquantised weights", fix=fix)


def _entries(config: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Quantisation entries that are not empty, with their places, in a configuration and those inside it."""
    for key, value in config.items():
        place = f"{path}{key}"
        if key in _KEYS:
            if value:
                yield place, value
        elif key.endswith("_config") and isinstance(value, dict):
            yield from _entries(value, f"{place}.")


def _in_words(scheme: Any) -> str:
    if not isinstance(scheme, dict):
        return str(scheme)[:40]
    method = str(scheme.get("quant_method") or scheme.get("quant_algo") or "an unnamed method")
    bits = scheme.get("bits") or scheme.get("w_bit")
    if method in ("bitsandbytes", "bnb"):
        bits = 4 if scheme.get("load_in_4bit") else 8 if scheme.get("load_in_8bit") else bits
    return _SCHEMES.get(method.lower(), method) + (f", {bits} bits" if bits else "")
