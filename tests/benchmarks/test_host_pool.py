"""Hosts of `gpu_check`: what works at the same time, and that an engine that fails leaves nothing to those after it."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from engine_host import Job

from benchmarks import connected_process
from benchmarks.arm import Arm
from benchmarks.host_pool import HostPool

Pools = Iterator[HostPool]


@pytest.fixture
def pool(tmp_path: Path) -> Pools:
    made = HostPool(tmp_path, os.environ, 1, 2.0, "scripted_host")
    yield made
    made.close()


def test_one_host_takes_jobs_in_turn_and_none_twice(pool: HostPool) -> None:
    first, second, again = (pool.submit(Job(name, None)) for name in ("a", "b", "a"))
    assert first.result(30).probed == second.result(30).probed
    assert again is first


def test_after_an_engine_that_failed_comes_another_process(pool: HostPool) -> None:
    before, failed, after = (pool.submit(Job(name, None)) for name in ("a", "fail", "b"))
    assert len({one.result(30).probed for one in (before, failed, after)}) == 3  # it failed alone, too
    assert failed.result().failure == ("Failed", "as asked")
    assert after.result().failure is None


def test_an_engine_that_fails_because_of_those_before_it_answers_alone(pool: HostPool) -> None:
    before, first = pool.submit(Job("a", None)), pool.submit(Job("first", None))
    assert before.result(30).probed != first.result(30).probed
    assert first.result().failure is None


@pytest.mark.parametrize(("name", "said"), [("end", "the engine host died"), ("hang", "no answer in 2 s")])
def test_a_host_that_ends_or_hangs_fails_its_own_job_alone(pool: HostPool, name: str, said: str) -> None:
    lost, after = pool.submit(Job(name, None)), pool.submit(Job("a", None))
    failure = lost.result(30).failure
    assert failure is not None
    assert failure[0] == "EngineHostEnded"
    assert said in failure[1]
    assert "scripted host" in failure[1]  # the end of its log
    assert after.result(30).failure is None
    assert pool.log().count(b"scripted host") == 2


def test_hosts_work_at_the_same_time(tmp_path: Path) -> None:
    (meeting := tmp_path / "meeting").mkdir()
    pool = HostPool(tmp_path, os.environ, 2, 30.0, "scripted_host")
    both = [pool.submit(Job(f"meet {meeting}", {"plan": number})) for number in range(2)]
    assert len({one.result(30).probed for one in both}) == 2
    pool.close()


def test_closing_ends_what_is_running_and_what_waits(tmp_path: Path) -> None:
    pool = HostPool(tmp_path, os.environ, 1, 300.0, "scripted_host")
    running = pool.submit(Job("hang", None))
    waiting = pool.submit(Job("a", None))
    while not pool.log().count(b"scripted host"):
        time.sleep(0.01)
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 10
    assert running.result(0).failure is not None
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_a_process_that_cannot_be_imported_keeps_nobody_waiting(tmp_path: Path) -> None:
    process, connection = connected_process.start("no_such_module", os.environ, tmp_path / "log")
    with pytest.raises(connected_process.ENDED):
        connection.recv()
    assert process.wait(10) == 1
    assert "no_such_module" in (tmp_path / "log").read_text()


def test_an_arm_that_ends_says_how_its_log_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where Python looks first
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise ImportError('libcuda is missing')")
    arm = Arm("stock", {}, None, dict(os.environ), tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"arm stock ended(?s:.)*libcuda is missing"):
        arm.wait()
    arm.kill()
