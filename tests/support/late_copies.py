"""Copies between the KV cache and the host's memory that are made late, as a GPU's are, not when they are asked for.

`late_copies` is a patch of the engine host's. Judges nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

LATE: Final = 8
"""Steps after which a copy is made, if nobody waits for it."""


@contextmanager
def late_copies(captured: dict[str, Any]) -> Iterator[None]:
    """Copy what a block holds then: one that was given to others before it was waited for is copied as theirs."""
    from unittest.mock import patch

    from vhserve.engine.kv_offload.host_memory import HostWorker

    stock = {name: getattr(HostWorker, name) for name in ("submit_store", "submit_load", "get_finished")}

    def waiting(worker: Any) -> dict[int, tuple[int, Callable[[], object]]]:
        """Steps that each copy has waited, and the copy, by job and in their order."""
        jobs: dict[int, tuple[int, Callable[[], object]]] = worker.__dict__.setdefault("late", {})
        return jobs

    def submit(kind: str) -> Callable[..., bool]:
        def submitted(worker: Any, job_id: int, *specs: Any) -> bool:
            waiting(worker)[job_id] = 0, lambda: stock[kind](worker, job_id, *specs)
            return True

        return submitted

    def wait(worker: Any, job_ids: set[int]) -> None:
        for job in job_ids & waiting(worker).keys():
            waiting(worker).pop(job)[1]()

    def get_finished(worker: Any) -> Any:
        jobs = waiting(worker)
        for job, (steps, copy) in list(jobs.items()):
            jobs[job] = steps + 1, copy
        wait(worker, {job for job, (steps, _) in jobs.items() if steps >= LATE})
        return stock["get_finished"](worker)

    late = {"submit_store": submit("submit_store"), "submit_load": submit("submit_load")}
    with patch.multiple(HostWorker, **late, wait=wait, get_finished=get_finished):
        yield
