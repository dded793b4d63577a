"""Are the LoRA adapters that a server is to start with there, and such that vLLM will load them?

vLLM looks at them when the model is loaded and warm, and then ends in a traceback. Reads their configurations; no
tensor. Does not know whether the model takes adapters.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags

_FLAG: Final = "--lora-modules"
_EXAMPLE: Final = f"{_FLAG} NAME=FOLDER"
_CONFIGURATION: Final = "adapter_config.json"
_TENSORS: Final = tuple(f"adapter_model.{ending}" for ending in ("safetensors", "bin", "pt"))
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WITHOUT: Final = (
    *("bias", "lora_bias", "modules_to_save", "use_dora", "use_qalora", "use_bdlora"),
    *("alora_invocation_tokens", "layer_replication"),
)
"""Fields of an adapter's configuration that vLLM 0.32 refuses (`PEFTHelper.validate_legal`), unless they are unused."""

_UNUSED: Final[tuple[object, ...]] = (None, "none", False, [])
_DEFAULT_RANK: Final = 16
"""vLLM's --max-lora-rank."""


def check_adapters(flags: GivenFlags, is_on_hub: Callable[[str, str], bool]) -> None:
    """Refuse adapters that are nowhere, not whole, or of a higher rank than --max-lora-rank, and any without LoRA.

    Parameters
    ----------
    is_on_hub
        Whether the Hub can be reached, and has that file of that repository.

    Raises
    ------
    FlagRefused
    """
    named = _named(flags.several(_FLAG))
    if not named:
        return
    if not flags.is_on("--enable-lora"):
        raise FlagRefused(
            f"{_FLAG} names adapters, and LoRA is not enabled",
            expected=f"--enable-lora with {_FLAG}",
            fix=f"give --enable-lora, or leave {_FLAG} out",
        )
    for path in named.values():
        if (folder := _folder(path, is_on_hub)) is not None:
            _check_files(folder, flags.whole_number("--max-lora-rank") or _DEFAULT_RANK)


def _named(items: Sequence[str]) -> dict[str, str]:
    """Paths of adapters by name, as vLLM reads the flag: `name=path`, or an object with both."""
    found = {}
    for item in filter(None, items):
        name, separator, path = item.partition("=")
        if not separator or "," in item:
            try:
                fields: Any = json.loads(item)
                name, path = fields["name"], fields["path"]
            except (ValueError, TypeError, KeyError):
                name = path = ""
        if not (isinstance(name, str) and isinstance(path, str) and name and path):
            raise FlagRefused(
                f"{_FLAG} {item}", expected="a name and a folder for each adapter", fix=f"give {_EXAMPLE}"
            )
        found[name] = path
    return found


def _folder(path: str, is_on_hub: Callable[[str, str], bool]) -> Path | None:
    """The folder of an adapter; None where vLLM asks the Hub for it.

    Raises
    ------
    FlagRefused
        There is no such folder, nor can there be such a Hub id; or the Hub is out of reach.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(path):
        raise _refused(path, "is no folder" if folder.exists() else "there is no such folder")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(cached := try_to_load_from_cache(path, _CONFIGURATION), str):
        return Path(cached).parent
    if is_on_hub(path, _CONFIGURATION):
        return None
    raise _refused(path, "there is no such folder, and the Hub has no such adapter or cannot be reached")


def _check_files(folder: Path, most: int) -> None:
    file = folder / _CONFIGURATION
    try:
        config: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no JSON"
        raise _refused(str(file), str(reason).lower()) from error
    if not any((folder / name).is_file() for name in _TENSORS):
        raise _refused(str(folder), f"has no {_TENSORS[0]}")
    if isinstance(config, dict) and (used := [name for name in _WITHOUT if config.get(name) not in _UNUSED]):
        raise FlagRefused(
            f"the adapter {folder} has {' and '.join(used)}, which vLLM does not have",
            expected=f"an adapter without ({_CONFIGURATION})",
            fix=f"leave it out of {_FLAG}, or merge it into the model",
        )
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()] if isinstance(config, dict) else []
    rank = max((one for one in ranks if isinstance(one, int)), default=0)
    if rank > most:
        raise FlagRefused(
            f"the adapter {folder} is of rank {rank}, above --max-lora-rank {most}",
            expected=f"--max-lora-rank {rank} at least",
            fix="raise it",
        )


def _refused(path: str, reason: str) -> FlagRefused:
    return FlagRefused(
        f"{_FLAG} {path}: {reason}",
        expected=f"a folder with {_CONFIGURATION} and {_TENSORS[0]}, or a Hub id",
        fix=f"correct {_FLAG}",
    )
