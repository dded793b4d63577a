"""The run: what the profile says, and that batches, interruptions and restarts leave no trace in it."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from calibrate.datasets import open_dataset
from calibrate.errors import NotFiniteAttention, OutOfDeviceMemory, StateMismatch
from calibrate.models.batches import make_batch
from calibrate.models.loading import load_model
from calibrate.runs.interrupts import Stopped
from calibrate.scoring import calibration
from calibrate.scoring.calibration import CalibrationSettings, calibrate
from calibrate.scoring.scorers import active_scorers
from calibrate.scoring.scorers.base import EPSILON
from profiles.planning.rankings import ranking
from profiles.store import load_profile

SAMPLES = 14


class Altered:
    """A dataset, with something that happens to each sample while it is read."""

    def __init__(self, dataset, alter):
        self._dataset, self._alter = dataset, alter

    def __iter__(self):
        return (self._alter(index, sample) for index, sample in enumerate(self._dataset))

    def __len__(self):
        return len(self._dataset)

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def some_boxes(**options):
    """The synthetic world, where every third sample has lost its box."""
    plain = open_dataset("synthetic", **options)
    return Altered(plain, lambda index, sample: sample if index % 3 else replace(sample, box=None))


def signalling(dataset, at, number=signal.SIGINT):
    """A dataset during whose reading a signal comes."""

    def alter(index, sample):
        if index == at:
            os.kill(os.getpid(), number)
        return sample

    return Altered(dataset, alter)


@pytest.fixture(scope="module")
def dataset():
    return some_boxes(samples=SAMPLES, seed=3, split="choosing")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return CalibrationSettings(
        tmp_path_factory.mktemp("run") / "profile.json", batch_size=3, seed=3, show_progress=False
    )


@pytest.fixture(scope="module")
def profile(llava, dataset, run):
    return calibrate(llava, dataset, run)


def elsewhere(run, tmp_path, **changes):
    return replace(run, out=tmp_path / "profile.json", **changes)


def partial(run):
    return run.out.with_name("profile.json.partial")


@torch.inference_mode()
def slow_profile(llava_path, dataset):
    """A, box weight, C, S and mean outputs by whole matrices, a sample at a time, in numpy."""
    slow = load_model(str(llava_path), "float32", "cpu", attention="eager")
    size, outputs = slow.geometry.head_size, []
    for module in slow.attentions:
        module.o_proj.register_forward_pre_hook(lambda _, args: outputs.append(args[0][0]))
    a, b, c, s, total, positions = [], [], [], [], 0, 0
    for sample in dataset:
        batch = make_batch(slow, [sample])
        outputs.clear()
        matrices = slow.model(**batch.inputs, output_attentions=True, use_cache=False).attentions
        rows = np.stack([matrix[0, :, -1].double().numpy() for matrix in matrices])
        image, box = batch.image[0].numpy(), batch.box[0].numpy()
        weight = rows[..., image].sum(-1)
        p = rows[..., image] / (weight[..., None] + EPSILON)
        narrow = 1 + (p * np.log(p + EPSILON)).sum(-1) / np.log(image.sum())
        a.append(weight)
        c.append(narrow)
        s.append(weight * narrow / np.arange(1, len(rows) + 1)[:, None])
        if sample.box is not None:
            b.append(rows[..., box].sum(-1))
        total = total + np.stack([x.double().unflatten(-1, (-1, size)).sum(0).numpy() for x in outputs])
        positions += len(image)
    return [np.mean(x, axis=0) for x in (a, b, c, s)], total / positions, len(b)


def test_numbers_against_the_slow_path(profile, llava_path, dataset):
    (a, b, c, s), output, with_box = slow_profile(llava_path, dataset)
    for name, expected in (("image_weight", a), ("box_weight", b), ("concentration", c), ("score", s)):
        found = ranking(profile, name)
        assert np.std(expected) > 1e-4
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(profile.mean_output, output, rtol=0, atol=1e-5)
    assert 0 < with_box < SAMPLES, "samples with and without a box are wanted here"
    assert profile.samples_with_box == with_box


def test_what_the_profile_says_of_the_run(profile, llava, dataset, run):
    assert profile == load_profile(run.out)
    assert (profile.model, profile.geometry) == (llava.ref, llava.geometry)
    assert profile.dataset == dataset.ref()
    assert (profile.samples, profile.samples_skipped, profile.seed) == (SAMPLES, 0, 3)
    assert (profile.formula.layer_function, profile.formula.epsilon) == ("inverse", EPSILON)
    ran = {"dtype": "float32", "device": "cpu", "image_backend": "torchvision"}
    assert profile.settings == {**ran, **llava.template.ref.settings(), "batch_size": 3, "processes": 1}
    assert {"torch", "transformers", "python"} <= profile.versions.keys()
    assert not partial(run).exists()


def test_the_layer_function_is_all_that_it_changes(profile, llava, dataset, run, tmp_path):
    flat = calibrate(llava, dataset, elsewhere(run, tmp_path, layer_function="none"))
    factors = np.arange(1, llava.geometry.layers + 1)[:, None]
    np.testing.assert_allclose(flat.scores(), profile.scores() * factors, rtol=1e-12)
    assert flat.rankings["concentration"] == profile.rankings["concentration"]


def test_batch_size_changes_nothing_beyond_float_error(profile, llava, dataset, run, tmp_path):
    other = calibrate(llava, dataset, elsewhere(run, tmp_path, batch_size=SAMPLES))
    assert set(profile.rankings) == {scorer.name for scorer in active_scorers(effects=False)}
    for name in profile.rankings:
        np.testing.assert_allclose(ranking(other, name), ranking(profile, name), rtol=0, atol=1e-6)
    np.testing.assert_allclose(other.mean_output, profile.mean_output, rtol=0, atol=1e-6)


def test_tiles(llava_next, dataset, run, tmp_path):
    found = calibrate(llava_next, dataset, elsewhere(run, tmp_path))
    assert found.geometry == llava_next.geometry
    assert np.all(ranking(found, "box_weight") < ranking(found, "image_weight"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_continues_to_the_same_bytes(llava, dataset, run, tmp_path, profile, number, code):
    here = elsewhere(run, tmp_path)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    for at in (4, 9):  # in the second and in the fourth batch
        with pytest.raises(Stopped) as stop:
            calibrate(llava, signalling(dataset, at, number), here)
        assert stop.value.code == code
        assert partial(here).exists()
        assert not here.out.exists()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    calibrate(llava, dataset, here)
    assert here.out.read_bytes() == run.out.read_bytes()
    assert not list(tmp_path.glob("*partial*"))


def test_what_was_measured_is_not_measured_again(llava, dataset, run, tmp_path, monkeypatch):
    here = elsewhere(run, tmp_path)
    with pytest.raises(Stopped):
        calibrate(llava, signalling(dataset, 7), here)
    measured = []
    monkeypatch.setattr(calibration, "make_batch", lambda *args: measured.append(len(args[1])) or make_batch(*args))
    calibrate(llava, dataset, here)
    # The batch with sample 7 was read when the signal came, and not begun.
    assert measured == [3, 3, 2]


def test_the_state_is_saved_while_the_run_goes_on(llava, dataset, run, tmp_path):
    here = elsewhere(run, tmp_path, save_every=0.0)

    def look(index, sample):
        if index == 10:
            saved.update(np.load(partial(here)))
        return sample

    saved = {}
    calibrate(llava, Altered(dataset, look), here)
    assert saved["samples"] == 9


def test_an_exception_loses_nothing(llava, dataset, run, tmp_path):
    here = elsewhere(run, tmp_path)

    def fail(index, sample):
        if index == 7:
            raise OSError("the disk is gone")
        return sample

    with pytest.raises(OSError, match="disk"):
        calibrate(llava, Altered(dataset, fail), here)
    calibrate(llava, dataset, here)
    assert here.out.read_bytes() == run.out.read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "seed was 3, is now 4"),
        ({"layer_function": "none"}, "layer function was inverse, is now none"),
        ({"samples": 9}, "samples was 14, is now 9"),
        ({"split": "measuring"}, "split was choosing, is now measuring"),
    ],
)
def test_state_of_other_settings_is_refused(llava, dataset, run, tmp_path, changes, words):
    here = elsewhere(run, tmp_path)
    with pytest.raises(Stopped):
        calibrate(llava, signalling(dataset, 4), here)
    before = partial(here).read_bytes()
    wanted = {"samples": SAMPLES, "split": "choosing"} | {k: v for k, v in changes.items() if k in ("samples", "split")}
    there = replace(here, **{k: v for k, v in changes.items() if k not in wanted})
    other = some_boxes(seed=there.seed, **wanted)
    with pytest.raises(StateMismatch, match="--restart") as error:
        calibrate(llava, other, there)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert partial(here).read_bytes() == before
    calibrate(llava, other, replace(there, restart=True))
    assert load_profile(here.out).seed == there.seed
    assert not partial(here).exists()


def test_another_model_is_not_continued(llava, llava_next, dataset, run, tmp_path):
    here = elsewhere(run, tmp_path)
    with pytest.raises(Stopped):
        calibrate(llava, signalling(dataset, 4), here)
    with pytest.raises(StateMismatch, match="revision was"):
        calibrate(llava_next, dataset, here)


def test_a_broken_state_is_refused(llava, dataset, run, tmp_path):
    here = elsewhere(run, tmp_path)
    for content in (b"", b"no archive", run.out.read_bytes()):
        partial(here).write_bytes(content)
        with pytest.raises(StateMismatch, match="cannot be read"):
            calibrate(llava, dataset, here)


def test_a_full_device_says_what_to_do_and_keeps_what_is_done(llava, dataset, run, tmp_path, monkeypatch, profile):
    here = elsewhere(run, tmp_path, batch_size=6)
    calls = []

    def full(*args):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return make_batch(*args)

    monkeypatch.setattr(calibration, "make_batch", full)
    with pytest.raises(OutOfDeviceMemory, match="--batch-size 3, which continues") as error:
        calibrate(llava, dataset, here)
    assert "a batch of 6 does not fit in the memory of cpu" in str(error.value)
    assert np.load(partial(here))["samples"] == 6
    found = calibrate(llava, dataset, replace(here, batch_size=3))
    np.testing.assert_allclose(found.scores(), profile.scores(), rtol=0, atol=1e-6)


def test_numbers_that_are_none(llava_path, dataset, run, tmp_path):
    loaded = load_model(str(llava_path), "float32", "cpu")
    loaded.attentions[2].k_proj.weight[0] = torch.nan
    with pytest.raises(NotFiniteAttention, match="NaN or infinite"):
        calibrate(loaded, dataset, elsewhere(run, tmp_path))
    assert not list(tmp_path.iterdir())
