"""The `vhserve` command: reads the command line, runs one command, turns user errors into one line and exit code 2.

Each command is a pydantic model in `vhserve.commands`: its fields are the only source of flags, defaults and help.
Does not know what the commands do; importing it imports neither torch nor vllm.
"""

import sys
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict, SettingsError

from profiles.errors import UserError
from vhserve.commands.plan import Plan

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Vhserve(BaseSettings):
    """Serve vision-language models with only the attention heads that earn their keep."""

    model_config = SettingsConfigDict(
        cli_prog_name="vhserve",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    plan: CliSubCommand[Plan]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)
