"""The loop by itself, around a measurement that only notes which samples it was given."""

import os
import signal

import numpy as np
import pytest
import torch
from planted_model import PlantedWorld, make_planted

from calibrate.datasets import Dataset
from calibrate.errors import DatasetBroken, OutOfDeviceMemory, StateMismatch
from calibrate.models.loading import load_model
from calibrate.runs.interrupts import Stopped, defer_signals
from calibrate.runs.loop import Measurement, ResumableLoop, batches
from calibrate.runs.processes import Processes
from calibrate.runs.settings import RunSettings

SAMPLES = 10


class Numbers(Measurement):
    """Keeps the number of each sample; `before` is called with every batch's numbers first."""

    def __init__(self, before=lambda numbers: None):
        self.arrays = {"numbers": np.zeros(0)}
        self.before, self.skipped, self.sizes = before, [], []

    @property
    def samples(self):
        return len(self.arrays["numbers"])

    def skip(self, sample):
        self.skipped.append(number(sample))

    def add(self, samples):
        numbers = [number(sample) for sample in samples]
        self.before(numbers)
        self.sizes.append(len(samples))
        self.arrays = {"numbers": np.append(self.arrays["numbers"], numbers)}


class Partners(Processes):
    """One of several processes of which the others have measured something."""

    def sum(self, array):
        return array + 1

    def wait(self):
        pass


def number(sample):
    return int(sample.id.rpartition("/")[2])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(str(make_planted(tmp_path_factory.mktemp("planted"))), "float32", "cpu")


@pytest.fixture
def settings(tmp_path):
    return {"out": tmp_path / "out.json", "batch_size": 4, "show_progress": False}


def loop_of(loaded, settings, samples=SAMPLES, identity=None, **options):
    return ResumableLoop(loaded, PlantedWorld(samples), RunSettings(**settings), identity or {}, **options)


def run(loop, measurement):
    with defer_signals() as interrupts:
        loop.run(measurement, "counting", interrupts)
    return measurement.arrays["numbers"].tolist()


def test_batches():
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


def test_every_sample_once_in_order_and_the_state_until_it_is_discarded(loaded, settings, tmp_path):
    loop, measurement = loop_of(loaded, settings), Numbers()
    assert run(loop, measurement) == list(range(SAMPLES))
    assert measurement.sizes == [4, 4, 2]
    again = Numbers()
    assert run(loop, again) == list(range(SAMPLES))
    assert (again.sizes, again.skipped) == ([], list(range(SAMPLES)))
    loop.discard_state()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), Stopped),
        (lambda: raise_(OSError("disk")), OSError),
        (lambda: raise_(torch.OutOfMemoryError("CUDA out of memory.")), OutOfDeviceMemory),
        (lambda: raise_(MemoryError()), OutOfDeviceMemory),
        (lambda: raise_(RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory")), OutOfDeviceMemory),
        (lambda: raise_(RuntimeError("shapes differ")), RuntimeError),
        (lambda: raise_(KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_whatever_ends_it_whole_batches_are_kept(failure, raised, loaded, settings, tmp_path):
    measurement = Numbers(lambda numbers: failure() if 4 in numbers else None)
    with pytest.raises(raised) as error:
        run(loop_of(loaded, settings), measurement)
    assert error.type is raised
    # A signal comes while the batch is measured, which is finished; an error leaves it out.
    kept = 8 if raised is Stopped else 4
    assert np.load(tmp_path / "out.json.partial")["numbers"].tolist() == list(range(kept))
    rest = Numbers()
    assert run(loop_of(loaded, settings | {"batch_size": 3}), rest) == list(range(SAMPLES))
    assert rest.skipped == list(range(kept))
    assert sum(rest.sizes) == SAMPLES - kept


def raise_(error):
    raise error


@pytest.mark.parametrize(("size", "fix"), [(4, "--batch-size 2, which continues"), (1, "smaller images")])
def test_a_full_device_says_what_to_do(size, fix, loaded, settings):
    measurement = Numbers(lambda numbers: raise_(MemoryError()))
    with pytest.raises(OutOfDeviceMemory, match=fix):
        run(loop_of(loaded, settings | {"batch_size": size}), measurement)


def test_other_settings_are_refused_and_restart_discards(loaded, settings):
    run(loop_of(loaded, settings, identity={"seed": 1}), Numbers())
    with pytest.raises(StateMismatch, match="seed was 1, is now 2"):
        run(loop_of(loaded, settings, identity={"seed": 2}), Numbers())
    fresh = Numbers()
    run(loop_of(loaded, settings | {"restart": True}, identity={"seed": 2}), fresh)
    assert sum(fresh.sizes) == SAMPLES


def test_the_state_is_saved_between_batches(loaded, settings, tmp_path):
    seen = []

    def look(numbers):
        if numbers[0]:
            seen.append(len(np.load(tmp_path / "out.json.partial")["numbers"]))

    run(loop_of(loaded, settings | {"save_every": 0.0}), Numbers(look))
    assert seen == [4, 8]


def test_processes_share_the_samples_and_have_states_of_their_own(loaded, settings, tmp_path):
    for rank in range(3):
        loop = loop_of(loaded, settings, processes=Partners(rank, 3))
        assert run(loop, Numbers()) == list(range(rank, SAMPLES, 3))
        assert (tmp_path / f"out.json.partial-{rank}-of-3").exists()
    # More processes than samples: one that has none is no mistake, as long as others have some.
    loop.discard_state()
    assert run(loop_of(loaded, settings, samples=2, processes=Partners(2, 3)), Numbers()) == []


class Empty(PlantedWorld):
    def __iter__(self):
        return iter(())


def test_no_sample_is_a_mistake(loaded, settings, tmp_path):
    empty: Dataset = Empty(SAMPLES)
    with pytest.raises(DatasetBroken, match="has no sample to measure"):
        run(ResumableLoop(loaded, empty, RunSettings(**settings), {}), Numbers())
    assert not list(tmp_path.iterdir())
