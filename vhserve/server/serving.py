"""Starts vLLM's own OpenAI server, with a plan or without: its flags, its server functions, in this process.

Owns how a plan and the server's settings are put among vLLM's arguments, and what is refused there. Does not know
models (`model_check` has compared the plan with one) nor how heads are cut out (`engine`).
"""

import sys
import traceback
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Final, NoReturn

from pydantic import ValidationError

from profiles.planning.layout import layer_layouts
from profiles.pruning_plan import PruningPlan
from vhserve.compat.command_line import flag_parsers, serve_command, set_up_serving
from vhserve.compat.processes import end_child_processes_with_this_one, mend_child_processes
from vhserve.compat.start_signals import end_soon_while_starting
from vhserve.devices import block_size_on, check_block_size, serving_device
from vhserve.engine.checks import kv_offloading, partial_options
from vhserve.engine.checks.admission_choice import KEY as ADMISSION_KEY
from vhserve.engine.checks.admission_choice import RECKON, Admission
from vhserve.engine.checks.architectures import served_by, vision_language
from vhserve.engine.checks.error_relay import raise_relayed_errors
from vhserve.engine.checks.plan_transport import KEY, pack_plan
from vhserve.engine.checks.surgery_choice import KEY as SURGERY_KEY
from vhserve.engine.checks.surgery_choice import AskedSurgery, check_surgery_flags
from vhserve.engine.checks.unsupported_options import check_arguments
from vhserve.errors import FlagRefused, ModelNotServable
from vhserve.server import engine_exit, hardening
from vhserve.server.middleware import middleware_names
from vhserve.server.settings import ServerSettings, attach


def engine_overrides(
    plan: PruningPlan, surgery: AskedSurgery = "auto", admission: Admission = RECKON
) -> dict[str, Any]:
    """Arguments that make vLLM serve a plan: keywords of `vllm.LLM`, attributes of its parsed command line.

    Raises
    ------
    ModelNotServable, LayoutRefused, TreatmentUnsupported
    """
    layer_layouts(plan)
    check_architecture(plan.model.architecture)
    asked: dict[str, Any] = {} if surgery == "auto" else {SURGERY_KEY: surgery}
    if admission != RECKON:
        asked[ADMISSION_KEY] = admission
    return {
        "hf_overrides": {"architectures": [served_by(plan.model.architecture)]},
        "additional_config": {KEY: pack_plan(plan), **asked},
        "scheduler_cls": partial_options.SCHEDULER,
        **partial_options.overrides(plan),
    }


def check_architecture(architecture: str) -> None:
    """Refuse an architecture that vLLM has no vision-language model for.

    Raises
    ------
    ModelNotServable
    """
    if architecture not in vision_language():
        raise ModelNotServable(
            f"a model of architecture {architecture} cannot be served with a plan: vLLM has no such model that takes "
            "pictures",
            expected="an architecture of vLLM's vision-language models",
            fix="serve it without --plan, or choose another model (see `vhserve models`)",
        )


def parse_flags(model: str, flags: Sequence[str]) -> Namespace:
    """Parse the flags of `vllm serve MODEL`, by vLLM's own parser.

    Defaults are vLLM's but for those of `hardening`.

    Raises
    ------
    FlagRefused
        vLLM's parser refuses one, or vLLM finds that they do not go together.
    """
    from vllm.logger import configure_logging_from_args

    command = serve_command()
    parser, of_serve = flag_parsers()
    parser.error = of_serve.error = _refuse
    of_serve.set_defaults(**deepcopy(hardening.FLAG_DEFAULTS))
    try:
        arguments: Namespace = parser.parse_args([command.name, model, *flags])
        configure_logging_from_args(arguments)
        command.validate(arguments)
    except (ValueError, TypeError, OSError) as error:
        _refuse(str(error), error)
    hardening.limit_queue(arguments)
    return arguments


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    """Refuse the command line for a reason of vLLM's, in one line."""
    line = " ".join(reason.split())
    raise FlagRefused(
        f"vLLM refuses its flags: {line}", expected="flags of `vllm serve`", fix="correct them"
    ) from cause


def apply_plan(
    arguments: Namespace, plan: PruningPlan, surgery: AskedSurgery = "auto", admission: Admission = RECKON
) -> None:
    """Make a parsed command line load and run a plan, in the plan's KV blocks; what the user overrides elsewhere stays.

    Raises
    ------
    BlockSizeUnsupported
    FlagRefused
        A flag does not go together with a plan.
    ModelNotServable, LayoutRefused, TreatmentUnsupported
    """
    check_arguments(arguments)
    check_surgery_flags(surgery, arguments)
    partial_options.check_flags(plan, arguments)
    kv_offloading.check_flags(arguments)
    _set_block_size(arguments, plan)
    ours = engine_overrides(plan, surgery, admission)
    for flag, attribute, key in (
        ("--hf-overrides", "hf_overrides", "architectures"),
        ("--additional-config", "additional_config", KEY),
    ):
        theirs = getattr(arguments, attribute) or {}
        if not isinstance(theirs, dict) or key in theirs:
            raise FlagRefused(
                f"{flag} sets {key}, which --plan sets",
                expected=f"{flag} without {key}",
                fix="leave it out, or serve without --plan",
            )
        setattr(arguments, attribute, {**theirs, **ours.pop(attribute)})
    if arguments.scheduler_cls is not None:  # checked above; without text-only heads another one will do
        ours.pop("scheduler_cls")
    if arguments.kv_offloading_size is not None:
        ours |= kv_offloading.overrides()
    for attribute, value in ours.items():
        setattr(arguments, attribute, value)


def _set_block_size(arguments: Namespace, plan: PruningPlan) -> None:
    device = serving_device()
    if arguments.block_size is None:
        arguments.block_size = block_size_on(device, plan.block_size)
    else:
        check_block_size(arguments.block_size, device)


def apply_settings(arguments: Namespace, settings: ServerSettings) -> None:
    """Give the server of a parsed command line its settings, and the middleware that they need around the user's."""
    attach(arguments, settings)
    arguments.middleware = [*arguments.middleware, *middleware_names(settings)]


def run_server(arguments: Namespace) -> None:
    """Run vLLM's server until it is stopped.

    Raises
    ------
    SystemExit
        The engine ended by itself.
    EngineRefused
        Something that only an engine's process can see does not go together with the plan.
    FlagRefused
        vLLM makes no configuration of the flags.
    """
    set_up_serving()
    mend_child_processes()
    end_child_processes_with_this_one()
    if not arguments.headless:  # it starts no server
        end_soon_while_starting()
    with raise_relayed_errors(), refused_configurations():
        serve_command().cmd(arguments)
    if code := engine_exit.exit_code():
        sys.exit(code)


_CHECKS: Final = ("create_engine_config", "validate_api_server_args")
"""Functions of vLLM's that look at a command line as a whole."""


@contextmanager
def refused_configurations() -> Iterator[None]:
    """Raise `FlagRefused` in place of an error with which vLLM refuses its flags as a whole."""
    try:
        yield
    except (ValueError, KeyError) as error:  # pydantic's are ValueErrors; of parsers' names vLLM raises KeyErrors
        steps = traceback.extract_tb(error.__traceback__)
        reason = _first_reason(error)
        if not any(step.name in _CHECKS for step in steps) or " " not in reason:  # a bare key is a defect's
            raise
        raise FlagRefused(
            f"vLLM refuses its flags: {' '.join(reason.split()).rstrip('.')}",
            expected="flags of `vllm serve` that go together, and with the model",
            fix="correct them",
        ) from error


def _first_reason(error: ValueError | KeyError) -> str:
    """What is wrong first, with the place where it is unless the words are vLLM's own, which say it."""
    if not isinstance(error, ValidationError):
        return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    first = error.errors()[0]
    if first["type"] in ("value_error", "assertion_error") or not first["loc"]:
        return first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{'.'.join(map(str, first['loc']))} is {first['input']!r:.60}: {first['msg']}"
