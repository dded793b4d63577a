"""What tests ask of vLLM's configuration without starting an engine: called by name, by the engine host.

Each returns plain values. Judges nothing.
"""

from importlib import import_module
from typing import Any


def put(plan: dict[str, Any], model: str, *flags: str) -> dict[str, Any]:
    """Runs in the host: parse flags, put a plan among them, and tell what came of it."""
    from profiles.store import plan_from_dict
    from vhserve.server import serving

    arguments = serving.parse_flags(model, flags)
    serving.apply_plan(arguments, plan_from_dict(plan))
    names = ("hf_overrides", "additional_config", "model_tag", "port", "block_size")
    return {name: getattr(arguments, name) for name in names}


def configure(model: str, *flags: str) -> None:
    """Runs in the host: parse flags, have vLLM check them, and make its configuration of them, as a server does."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.launcher import validate_api_server_args

    from vhserve.server import serving

    arguments = serving.parse_flags(model, flags)
    arguments.model = model
    with serving.refused_configurations():
        validate_api_server_args(arguments)
        AsyncEngineArgs.from_cli_args(arguments).create_engine_config()


def table_of_flags() -> str:
    """Runs in the host: what the table of vLLM's flags should be."""
    from vhserve.compat.command_line import flag_parsers
    from vhserve.server.preflight.vllm_flags import table_of

    return table_of(flag_parsers()[1])


def settings_of_stock(model: str, module: str) -> int:
    """Runs in the host: find every setting of a module's table in vLLM's configuration; none is refused by default."""
    from vllm.engine.arg_utils import EngineArgs

    from vhserve.engine.checks.unsupported_options import check_config

    table = import_module(module).UNSUPPORTED_OPTIONS
    check_config(EngineArgs(model=model, block_size=32, max_model_len=256).create_engine_config(), table)
    return len(table)
