"""The parser of the command line: argparse's, with help pages that fit 80 columns and errors that are raised.

Owns how options look in help. pydantic-settings fills the parser from the commands' fields; does not know them.
"""

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from inspect import cleandoc
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, Final, NoReturn

_VALUES: Final = {"str": "TEXT", "int": "N", "float": "NUMBER", "Path": "PATH"}
"""What stands for a value in help, by the name of its type."""
_LONG: Final = 32
"""Characters from which choices stand in the description, and not behind the flag."""
_DEFAULT: Final = re.compile(r" ?\(default: (?P<value>.*)\)$", re.DOTALL)


class CommandLineWrong(Exception):
    """The command line cannot be parsed; says why, and whose help to see."""


class HelpPageParser(ArgumentParser):
    """An argument parser whose help pages are short to read, and which raises instead of ending the process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "formatter_class": RawDescriptionHelpFormatter, "allow_abbrev": False})
        self._values: list[str] = []
        self._commands: Any = None

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """Add an option as pydantic-settings describes it, in the words of the help pages."""
        settings["help"] = _with_default(settings.get("help") or "")
        value = settings.get("metavar")
        if isinstance(value, str) and names[0].startswith("-"):
            if value.startswith("{") and len(value) > _LONG:
                settings["help"] = f"one of {', '.join(value.strip('{}').split(','))}: {settings['help']}"
                value = "NAME"
            elif not value.startswith("{"):
                value = _VALUES.get(value, _VALUES["str"])
            settings["metavar"] = value
        elif isinstance(value, str):
            self._values.append(value if settings.get("nargs") is None else f"[{value} ...]")
        return super().add_argument(*names, **settings)

    def add_subparsers(self, **settings: Any) -> Any:
        """Add the place for commands, which help calls commands."""
        self._commands = super().add_subparsers(**{**settings, "title": "commands"})
        return self._commands

    def format_help(self) -> str:
        """The help page, as wide as the terminal."""
        paragraphs = cleandoc(self.description or "").split("\n\n")
        width = get_terminal_size().columns - 2
        self.description = "\n\n".join(fill(one, width, break_on_hyphens=False) for one in paragraphs)
        self.usage = " ".join([self.prog.replace("%", "%%"), *self._values, "[options]"])
        if self._commands is not None:
            self.usage = f"{self.prog} COMMAND [options]"
            self._commands.metavar = "COMMAND"
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises
        ------
        CommandLineWrong
        """
        raise CommandLineWrong(f"{message}; see {self.prog} --help")


def _with_default(text: str) -> str:
    """The help of an option without a default that says nothing, and without brackets around lists."""
    found = _DEFAULT.search(text)
    if found is None:
        return text
    value, before = found["value"], text[: found.start()]
    if value in ("None", "False", "[]"):
        return before
    if value.startswith("["):
        value = ",".join(part.strip(" '\"") for part in value.strip("[]").split(","))
    return f"{before} (default: {value})"
