"""What a model name stands for: `find` turns an alias, Hub id or path into something `from_pretrained` takes, or into a
one-line error.

The aliases are in `calibrate.models.known`; models without one need none. Does not import torch or transformers, and
loads no weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrate.errors import UnknownModel, UnsupportedModel
from calibrate.models.hub import NotOnHub, config_path
from calibrate.models.known import ARCHITECTURES, KNOWN
from profiles.errors import ModelBroken
from profiles.suggestions import did_you_mean


@dataclass(frozen=True)
class FoundModel:
    """A model whose configuration has been read and that is of a supported kind.

    Attributes
    ----------
    name
        What the user can load again: `demo`, a Hub id, or the path as it was given.
    source
        What `from_pretrained` takes.
    folder
        Where `config.json` lies; for a Hub model the snapshot in the local cache.
    config
        Content of `config.json`.
    """

    name: str
    source: str
    folder: Path
    config: dict[str, Any]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of the user's; else a snapshot in the Hub's cache, which may not be complete yet."""
        return self.source == str(self.folder)

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def architecture(self) -> str:
        """Class in transformers and in vLLM, as `config.json` says it."""
        named = self.config.get("architectures") or [None]
        return ARCHITECTURES.get(self.model_type) or str(named[0] or self.model_type)


def resolve(name: str) -> str:
    """Turn an alias, Hub id or path into what `from_pretrained` takes; raises what `find` raises."""
    return find(name).source


def find(name: str, revision: str | None = None, preferred: str | None = None) -> FoundModel:
    """Find a model by alias, Hub id or path and read its configuration.

    Parameters
    ----------
    revision, preferred
        Of a Hub model, see `calibrate.models.hub.config_path`; folders have none.

    Raises
    ------
    UnknownModel
        It is none of the three.
    ModelOffline
        It is on the Hub, not in the local cache, and the Hub cannot be reached.
    UnsupportedModel
        It is no vision-language model in transformers' format.
    ModelBroken
        Its folder has no readable `config.json`.
    """
    known = KNOWN.get(name)
    if known is not None and not known.loadable:
        raise UnsupportedModel(
            f"model {name} ({known.hub}) is published in LLaVA's own format ({known.model_type})",
            expected="a checkpoint in transformers' format",
            fix="convert it with transformers' LLaVA conversion scripts and give the folder, or see `vhserve models`",
        )
    if known is not None and known.alias != "demo":
        name = known.hub
    local = Path(known.hub) if known is not None and known.alias == "demo" else Path(name).expanduser()
    if known is not None and known.alias == "demo" and not local.is_dir():
        raise ModelBroken(
            "the demo model is not in this installation", expected=f"its files in {local}", fix="install vhserve again"
        )
    if local.is_dir():
        found = FoundModel(name, str(local), local, _read_config(name, local / "config.json"))
    else:
        if local.exists() or not _looks_like_hub_id(name):
            raise _unknown(name, local)
        try:
            path = config_path(name, revision, preferred)
        except NotOnHub as error:
            raise _unknown(name, local) from error
        found = FoundModel(name, name, path.parent, _read_config(name, path))
    _check_supported(found)
    return found


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and parts[0] not in {".", "..", "~"}


def _unknown(name: str, local: Path) -> UnknownModel:
    hubs = [model.hub for model in KNOWN.values()]
    hint = did_you_mean(name, [*KNOWN, *hubs], "see `vhserve models` for the aliases")
    what = "is a file" if local.is_file() else "is unknown"
    return UnknownModel(f"model {name!r} {what}", expected="an alias, a Hub id (owner/name) or a folder", fix=hint)


def _read_config(name: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelBroken(
            f"model {name}: {path} cannot be read ({type(error).__name__})",
            expected="a folder with a config.json in transformers' format",
            fix="give the folder that holds config.json and the weights",
        ) from error
    if not isinstance(config, dict):
        raise ModelBroken(f"model {name}: {path} holds no object", expected="a JSON object", fix="restore the file")
    return config


def _check_supported(found: FoundModel) -> None:
    """Whether it has a vision tower; what else it needs only the built model shows (`calibrate.models.criterion`)."""
    kind = found.config.get("model_type")
    if isinstance(kind, str) and (kind in ARCHITECTURES or isinstance(found.config.get("vision_config"), dict)):
        return
    architectures = found.config.get("architectures") or [kind or "no architecture"]
    raise UnsupportedModel(
        f"model {found.name} is {', '.join(map(str, architectures))} (model_type {kind})",
        expected="a vision-language model in transformers' format, with a vision_config",
        fix="choose a supported vision-language model, see `vhserve models`",
    )
