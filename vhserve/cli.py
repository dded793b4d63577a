"""The `vhserve` command: reads the command line, runs one command, turns user errors into one line and exit code 2.

Each command is a pydantic model in `vhserve.commands`: its fields are the only source of flags, defaults and help.
Does not know what the commands do; importing it imports neither torch nor vllm.
"""

import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError
from rich.console import Console
from rich.markup import escape

from profiles.errors import UserError
from vhserve import __version__
from vhserve.commands.ablate import Ablate
from vhserve.commands.analyze import Analyze
from vhserve.commands.calibrate import Calibrate
from vhserve.commands.demo import Demo
from vhserve.commands.evaluate import Evaluate
from vhserve.commands.loadtest import Loadtest
from vhserve.commands.models import Models
from vhserve.commands.plan import Plan
from vhserve.commands.profile import Profile
from vhserve.commands.rankings import Rankings
from vhserve.commands.serve import Serve

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Vhserve(BaseSettings):
    """Serve vision-language models with only the attention heads that earn their keep."""

    # `serve` hands what it does not know to vLLM; every other command refuses it (see `main`).
    model_config = SettingsConfigDict(
        cli_prog_name="vhserve",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    calibrate: CliSubCommand[Calibrate]
    profile: CliSubCommand[Profile]
    rankings: CliSubCommand[Rankings]
    plan: CliSubCommand[Plan]
    serve: CliSubCommand[Serve]
    evaluate: CliSubCommand[Evaluate]
    loadtest: CliSubCommand[Loadtest]
    ablate: CliSubCommand[Ablate]
    analyze: CliSubCommand[Analyze]
    models: CliSubCommand[Models]
    demo: CliSubCommand[Demo]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class VhservePassingFlagsOn(Vhserve):
    """`Vhserve` for `serve`, whose unknown flags are vLLM's."""

    model_config = SettingsConfigDict(cli_ignore_unknown_args=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv
        Arguments without the program's name; the process's own by default.

    Returns
    -------
    int
        0, 1 when a check that the user asked for fails, 2 after a mistake the user can mend, 130 when interrupted.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args in (["--version"], ["-V"]):
        print(f"vhserve {__version__}")
        return 0
    if not args:
        args = ["--help"]
    root = VhservePassingFlagsOn if args[0] == "serve" else Vhserve
    try:
        CliApp.run(root, cli_args=args)
    except UserError as error:
        return _refuse(str(error))
    except SettingsError as error:
        return _refuse(f"{error}; see vhserve {args[0]} --help")
    except ValidationError as error:
        if error.title not in (root.__name__, *Vhserve.model_fields):
            raise  # not the command line's: a defect of ours, which keeps its traceback
        return _refuse(_first_line(error, args))
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else USER_ERROR if stop.code else 0
    return 0


def _first_line(error: ValidationError, args: Sequence[str]) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    words: list[str] = []
    while path and path[0] in args[len(words) : len(words) + 1]:  # a command, or one of its own commands
        words.append(path.pop(0))
    command = " ".join(words) or args[0]
    flag = "--" + path[0].replace("_", "-") if path else "the command line"
    found = f" {first['input']!r}" if first["type"] != "missing" else ""
    return f"{flag}{found}: {first['msg'].lower()}; see vhserve {command} --help"


def _refuse(line: str) -> int:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]vhserve: error:[/] {escape(line)}")
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
