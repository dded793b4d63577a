"""An engine host without engines: what it does on a job is what the job's model is called. Judges nothing."""

import os
import time
from pathlib import Path

from engine_host import EngineOutcome, Job

from benchmarks import connected_process

WAIT = 60.0


def main(number: int) -> None:
    """Answer jobs until the tests hang up: each answer is the process's id.

    `fail` makes the outcome a failure, `first` all but the process's first one, `end` ends the process, `hang` waits
    too long, and `meet FOLDER` waits until another process has been asked to.
    """
    connection = connected_process.parent(number)
    print("scripted host", os.getpid(), flush=True)
    while True:
        try:
            asked, job = connection.recv()
        except EOFError:
            return
        assert isinstance(job, Job)
        word, _, folder = job.model.partition(" ")
        if word == "end":
            print("ends", flush=True)
            os._exit(3)
        if word == "hang":
            time.sleep(WAIT)
        if word == "meet":
            (Path(folder) / str(os.getpid())).touch()
            deadline = time.monotonic() + WAIT
            while len(list(Path(folder).iterdir())) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        failure = ("Failed", "as asked") if word == "fail" or (word == "first" and asked > 1) else None
        connection.send((asked, EngineOutcome(failure=failure, probed=os.getpid())))
