"""The commands of `vhserve`, and how a command line becomes one of them or one line about what is wrong with it.

Each command is a pydantic model in `vhserve.commands`: its fields are the only source of flags, defaults and help.
Does not know what the commands do; importing it imports neither torch nor vllm.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    CliSubCommand,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from profiles.errors import UserError
from profiles.files import take_written
from profiles.suggestions import did_you_mean
from vhserve import __version__, standard_output
from vhserve.commands import flags
from vhserve.commands.ablate import Ablate
from vhserve.commands.analyze import Analyze
from vhserve.commands.calibrate import Calibrate
from vhserve.commands.demo import Demo
from vhserve.commands.evaluate import Evaluate
from vhserve.commands.flags import command
from vhserve.commands.help_pages import CommandLineWrong, HelpPageParser
from vhserve.commands.loadtest import Loadtest
from vhserve.commands.models import Models
from vhserve.commands.plan import Plan
from vhserve.commands.plan_show import PlanShow
from vhserve.commands.profile import Profile
from vhserve.commands.rankings import Rankings
from vhserve.commands.serve import Serve

USER_ERROR = 2

_UNRECOGNIZED: Final = re.compile(r"unrecognized arguments: (.*); see", re.DOTALL)
"""What argparse says of words that it has no place for."""


class Vhserve(BaseSettings):
    """Serve vision-language models with only the attention heads that earn their keep."""

    # `serve` hands what it does not know to vLLM; every other command refuses it (see `run`).
    model_config = SettingsConfigDict(
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    calibrate: CliSubCommand[Calibrate] = command(Calibrate)
    profile: CliSubCommand[Profile] = command(Profile)
    rankings: CliSubCommand[Rankings] = command(Rankings)
    plan: CliSubCommand[Plan] = command(Plan)
    plan_show: CliSubCommand[PlanShow] = command(PlanShow, alias="plan show")
    serve: CliSubCommand[Serve] = command(Serve)
    evaluate: CliSubCommand[Evaluate] = command(Evaluate)
    loadtest: CliSubCommand[Loadtest] = command(Loadtest)
    ablate: CliSubCommand[Ablate] = command(Ablate)
    analyze: CliSubCommand[Analyze] = command(Analyze)
    models: CliSubCommand[Models] = command(Models)
    demo: CliSubCommand[Demo] = command(Demo)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line alone: a variable of the environment that is called PLAN or DEMO means something else."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class VhservePassingFlagsOn(Vhserve):
    """`Vhserve` for `serve`, whose unknown flags are vLLM's."""

    model_config = SettingsConfigDict(cli_ignore_unknown_args=True)


def run(args: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    args
        Arguments without the program's name.

    Returns
    -------
    int
        0, 1 when a check that the user asked for fails, 2 after a mistake the user can mend, 141 when nobody reads
        standard output any more.
    """
    if list(args) in (["--version"], ["-V"]):
        print(f"vhserve {__version__}")
        return 0
    args = _joined(args or ["--help"])
    words, model = flags.find_command(Vhserve, args)
    root = VhservePassingFlagsOn if flags.passes_flags_on(model) else Vhserve
    take_written()
    try:
        if flags.passes_flags_on(model):
            args = [*words, *_model_first(args[len(words) :], model)]
        CliApp.run(root, cli_args=args, cli_settings_source=_source(root))
        standard_output.flush()
    except CommandLineWrong as error:
        wrong = flags.misspelt(Vhserve, args)
        if wrong is None and (extra := _UNRECOGNIZED.match(str(error))):
            wrong = flags.too_many(Vhserve, args, extra.group(1))
        return _refuse(str(error) if wrong is None else f"{wrong[0]}; expected {wrong[1]}; {wrong[2]}")
    except UserError as error:
        return _refuse(str(error))
    except SettingsError as error:
        return _refuse(_unreadable_list(args) or f"{error}; see vhserve {args[0]} --help")
    except ValidationError as error:
        if error.title not in (root.__name__, *flags.commands(Vhserve)):
            raise  # not the command line's: a defect of ours, which keeps its traceback
        return _refuse(_first_line(error, args))
    except OSError as error:
        if not standard_output.is_full(error) and not standard_output.reader_has_gone(error):
            raise
        return _output_ended(error)
    except SystemExit as stop:
        if standard_output.reader_has_gone(stop):
            return _output_ended(stop)
        code = stop.code if isinstance(stop.code, int) else USER_ERROR if stop.code else 0
        if code in (0, 1):
            _say_written()
        return code
    _say_written()
    return 0


def _source(root: type[Vhserve]) -> CliSettingsSource[Any]:
    """Where the values come from: a parser of ours, which pydantic-settings fills with the commands' fields."""
    return CliSettingsSource(
        root,
        root_parser=HelpPageParser(prog="vhserve", description=Vhserve.__doc__),
        add_argument_method=HelpPageParser.add_argument,
        add_subparsers_method=HelpPageParser.add_subparsers,
        format_help_method=HelpPageParser.format_help,
    )


def _model_first(words: Sequence[str], command: type[BaseModel]) -> list[str]:
    """What follows `serve`, with MODEL in front.

    Raises
    ------
    FlagRefused
        There is no model.
    """
    from vhserve.server.preflight.flags import put_model_first

    own = {flag: field.annotation is not bool for flag, field in flags.options(command).items()}
    return put_model_first(words, own)


def _joined(args: Sequence[str]) -> list[str]:
    """The command line with the words of a command, such as `plan show`, as one."""
    words = max((name.split() for name in flags.commands(Vhserve) if _begins(args, name.split())), key=len, default=[])
    return [" ".join(words), *args[len(words) :]] if words else list(args)


def _begins(args: Sequence[str], words: Sequence[str]) -> bool:
    return list(args[: len(words)]) == list(words)


def _unreadable_list(args: Sequence[str]) -> str | None:
    """What is wrong with a list that pydantic-settings cannot read, which it says of the whole command only."""
    words, model = flags.find_command(Vhserve, args)
    given = {word.partition("=")[0] for word in args}
    found = [flag for flag, field in flags.options(model).items() if flag in given and "list[" in str(field.annotation)]
    if not found:
        return None
    return f"{' or '.join(found)}: input should be comma-separated values; see vhserve {' '.join(words)} --help"


def _first_line(error: ValidationError, args: Sequence[str]) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    words: list[str] = []
    while path and path[0] in args[len(words) : len(words) + 1]:  # a command, or one of its own commands
        words.append(path.pop(0))
    command = " ".join(words) or args[0]
    flag = "--" + path[0].replace("_", "-") if path else "the command line"
    found = f" {first['input']!r:.60}" if first["type"] != "missing" else ""
    fix = f"see vhserve {command} --help"
    if first["type"] == "literal_error":
        fix = did_you_mean(str(first["input"]), re.findall("'([^']+)'", first["ctx"]["expected"]), fix)
    return f"{flag}{found}: {first['msg'].lower()}; {fix}"


def _say_written() -> None:
    """Name every file that the command has written."""
    if written := take_written():
        print(f"vhserve: wrote {', '.join(map(str, written))}", file=sys.stderr)


def _output_ended(error: BaseException) -> int:
    """What to return where standard output takes no more; what was written elsewhere is whole."""
    standard_output.discard()
    _say_written()
    if not isinstance(error, OSError) or not standard_output.is_full(error):
        return standard_output.PIPE_CLOSED
    return _refuse(
        f"cannot write to standard output: {error.strerror}; expected room for what is printed; make room, or write it "
        "elsewhere"
    )


def _refuse(line: str) -> int:
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]vhserve: error:[/] {escape(line)}")
    return USER_ERROR
