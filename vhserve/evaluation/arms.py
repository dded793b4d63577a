"""An arm: one server asked a whole dataset, with its figures; and the names that arms go by.

Brings client, scoring and progress together. Does not pair arms and writes no file.
"""

import time
from dataclasses import dataclass

from calibrate.datasets import Dataset
from calibrate.runs.progress import progress_bar
from vhserve.evaluation.client import RequestLimits, ask_all
from vhserve.evaluation.errors import NothingToMeasure
from vhserve.evaluation.results import Arm, Server
from vhserve.evaluation.scoring import figures, published


@dataclass(frozen=True)
class AskedArm:
    """An arm, and the samples that could not be asked for because their picture is broken."""

    arm: Arm
    broken: list[str]


def ask_arm(name: str, server: Server, dataset: Dataset, limits: RequestLimits, api_key: str) -> AskedArm:
    """Ask a server every sample of a dataset.

    Parameters
    ----------
    name
        What the arm is called in tables and files.
    server
        The server to ask.
    dataset
        Read from its start.
    limits, api_key
        As `ask_all` takes them.

    Raises
    ------
    NothingToMeasure
        When the dataset holds no sample.
    ServerLost
        When requests fail in a row.
    """
    started = time.perf_counter()
    with progress_bar(name, len(dataset)) as advance:
        answers = ask_all(server, dataset, limits=limits, api_key=api_key, advance=lambda answer: advance(1))
    if not answers:
        raise NothingToMeasure(
            f"dataset {dataset.ref().name} holds no sample of those families",
            expected="at least one",
            fix="give other --families or another --dataset",
        )
    arm = Arm(
        name=name,
        server=server,
        seconds=time.perf_counter() - started,
        figures=figures(answers),
        metric=dataset.metric,
        published=published(dataset.metric, answers),
        answers=answers,
    )
    return AskedArm(arm, list(dataset.broken))


def treatment_name(server: Server) -> str:
    """`pruned` for a server that reports a plan, else `baseline`."""
    return "pruned" if server.plan_digest else "baseline"


def arm_names(servers: list[Server]) -> list[str]:
    """Name arms after what they serve; where two would share a name, they are numbered."""
    names = [treatment_name(server) for server in servers]
    if len(set(names)) == len(names):
        return names
    return [f"{name} {number}" for number, name in enumerate(names, 1)]
