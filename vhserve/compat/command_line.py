"""vLLM's own command line: its parser, and what it does before it runs a server.

Does not know which flags are ours. Importing it is cheap.
"""

from typing import Any


def serve_command() -> Any:
    """vLLM's `vllm serve`: `name`, `subparser_init(subparsers)`, `validate(arguments)` and, on the class, `cmd`.

    Symptom
        `vllm serve` cannot be asked for its parser, nor started with arguments that were parsed before.
    Cause
        vLLM's command line builds its parser inside `main`; the class that adds the flags and runs the server is not
        among the documented interfaces.
    Removal
        vLLM documents a function that returns the parser of `vllm serve`, and one that runs its arguments.
    """
    from vllm.entrypoints.cli.serve import ServeSubcommand

    return ServeSubcommand()


def flag_parsers() -> tuple[Any, Any]:
    """vLLM's parser of command lines, and within it the one of `vllm serve`; see `serve_command`."""
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser_class: Any = FlexibleArgumentParser  # untyped
    parser = parser_class(prog="vhserve")
    return parser, serve_command().subparser_init(parser.add_subparsers(dest="subparser"))


def set_up_serving() -> None:
    """Do to this process what `vllm` does before it runs a command: start method of its processes, plugins.

    Symptom
        Engine processes are forked from a process that has threads.
    Cause
        vLLM's `main` sets the start method, in a helper that is not among the documented interfaces.
    Removal
        With `serve_command`.
    """
    try:
        from vllm.entrypoints.common.startup import cli_env_setup
    except ImportError:  # vLLM 0.32
        from vllm.entrypoints.serve.utils.api_utils import cli_env_setup

    set_up: Any = cli_env_setup  # untyped
    set_up()
