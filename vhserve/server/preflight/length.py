"""May requests be as long as the command line says? Not beyond the model's positions, unless vLLM is to allow it."""

import os

from profiles.checkpoints.configuration import Json, context_length, decoder_configuration
from vhserve.errors import FlagRefused
from vhserve.server.preflight.flags import GivenFlags


def check_length(flags: GivenFlags, config: Json) -> None:
    """Refuse a --max-model-len of nothing, or beyond the length that a model was made for, as vLLM does.

    Parameters
    ----------
    config
        Content of the model's `config.json`; empty where it is not known.

    Raises
    ------
    FlagRefused
    """
    asked = flags.whole_number("--max-model-len")
    given = (flags.get("--max-model-len") or "1").strip()
    if asked == 0 or (given.startswith("-") and given != "-1"):
        raise FlagRefused(f"--max-model-len is {given}", expected="1 at least, or auto", fix="correct --max-model-len")
    if not asked or not config or "--hf-overrides" in flags or os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1":
        return
    text = decoder_configuration(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    length = context_length(config)
    if length is None or "longrope" in str(rope) or "model_max_length" in {*config, *text} or asked <= length:
        return
    raise FlagRefused(
        f"--max-model-len is {asked}, and the model has {length} positions",
        expected=f"{length} at most",
        fix="lower it, or set VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 if you know that the model can do more",
    )
