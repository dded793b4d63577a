"""The models that are known by a short name, and what any model name stands for.

Owns the table of the paper's nine models (Bi et al., CVPR 2025, table 1) and the demo model, and `find`, which turns an
alias, Hub id or path into something `from_pretrained` takes or into a one-line error. Does not import torch or
transformers, and loads no weights.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from calibrate.demo import MODEL_DIR
from calibrate.errors import UnknownModel, UnsupportedModel
from calibrate.models.hub import NotOnHub, config_path
from profiles.errors import ModelBroken
from profiles.suggestions import did_you_mean

ARCHITECTURES: Final = {
    "llava": "LlavaForConditionalGeneration",
    "llava_next": "LlavaNextForConditionalGeneration",
    "vipllava": "VipLlavaForConditionalGeneration",
}
"""Supported `model_type` values and the architecture each stands for."""


@dataclass(frozen=True)
class KnownModel:
    """One row of the table.

    Attributes
    ----------
    alias
        What `--model` takes.
    hub
        Hub id; for the demo model, the folder that it is shipped in.
    model_type
        As `config.json` says it; `llava_llama` and `llava_phi` are LLaVA's own format, which transformers cannot read.
    layers, query_heads, kv_heads, head_size
        Geometry of the decoder.
    image_tokens
        Tokens of one image; LLaVA-1.6 varies with its shape, and this is a square one's, the most there are.
    resolution
        Pixels along a side of what the vision tower sees; LLaVA-1.6 sees a square image's tiles so.
    """

    alias: str
    hub: str
    model_type: str
    layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    image_tokens: int
    resolution: int

    @property
    def origin(self) -> str:
        """Where it comes from, in words for a table."""
        return "shipped with vhserve" if self.alias == "demo" else self.hub

    @property
    def architecture(self) -> str | None:
        """Class in transformers; `None` when it has none."""
        return ARCHITECTURES.get(self.model_type)

    @property
    def loadable(self) -> bool:
        """Whether transformers and vLLM can read it, and `vhserve` can calibrate and serve it."""
        return self.model_type in ARCHITECTURES

    @property
    def note(self) -> str:
        """Why it cannot be loaded; empty when it can."""
        return "" if self.loadable else "on the Hub in LLaVA's own format only: convert it to transformers' first"


# Geometry from each checkpoint's config.json. The paper's table gives 24 x 32 for the two small ViP-LLaVA models;
# their configurations say 32 layers.
KNOWN: Final = {
    model.alias: model
    for model in (
        KnownModel("demo", str(MODEL_DIR), "llava", 12, 8, 8, 32, 144, 96),
        KnownModel("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "llava", 32, 32, 32, 128, 576, 336),
        KnownModel("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", "llava", 40, 40, 40, 128, 576, 336),
        KnownModel("llava-1.6-7b", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", 32, 32, 32, 128, 2928, 672),
        KnownModel("llava-1.6-13b", "llava-hf/llava-v1.6-vicuna-13b-hf", "llava_next", 40, 40, 40, 128, 2928, 672),
        KnownModel(
            "llava-1.6-mistral-7b", "llava-hf/llava-v1.6-mistral-7b-hf", "llava_next", 32, 32, 8, 128, 2928, 672
        ),
        KnownModel("vip-llava-7b", "llava-hf/vip-llava-7b-hf", "vipllava", 32, 32, 32, 128, 576, 336),
        KnownModel("vip-llava-13b", "llava-hf/vip-llava-13b-hf", "vipllava", 40, 40, 40, 128, 576, 336),
        KnownModel("vip-llava-llama-3-8b", "mucai/vip-llava-llama-3-8b", "llava_llama", 32, 32, 8, 128, 576, 336),
        KnownModel("vip-llava-phi-3-3.8b", "mucai/vip-llava-phi-3-mini-3.8B", "llava_phi", 32, 32, 32, 96, 576, 336),
    )
}


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
