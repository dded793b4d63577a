"""What tests of what is refused before anything starts share: the command, and a plan."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_host import Command
from oracle import TinyModel

from profiles.pruning_plan import PruningPlan
from profiles.store import save


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("command"))
    with command.process:  # its input is closed at the end, which ends it
        yield command
    assert command.process.returncode == 0


@pytest.fixture(scope="module")
def plan_of_removed(models: dict[str, TinyModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = models["gqa"]
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    save(PruningPlan.manual(model.ref, model.geometry, removed=[(0, 0), (0, 1)]), path)
    return path
