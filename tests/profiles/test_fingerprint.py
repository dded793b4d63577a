"""A model folder's revision: the Hub's commit, or a digest that changes with every byte it covers."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from profiles import fingerprint
from profiles.checkpoints import file_digests
from profiles.errors import FileUnreadable, ModelBroken
from profiles.fingerprint import identify_model, model_revision, old_scheme_warning

COMMIT = "b234b804b114d9e37bb655e11cbbb5f5e971b7a9"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vhserve" / "digests"


@pytest.fixture
def remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of any size and age are remembered."""
    monkeypatch.setattr(file_digests, "CACHED_FROM", 1)
    monkeypatch.setattr(file_digests, "SETTLED_NS", -(10**18))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model-2.safetensors").write_bytes(bytes(range(200)))
    (folder / "model-1.safetensors").write_bytes(b"one")
    return folder


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in parts)).hexdigest()


def sha256(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest().encode()


@pytest.mark.parametrize("name", ["snapshots/main", f"models/{COMMIT}"])
def test_other_folders_get_a_digest(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "config.json").write_text("{}")
    assert model_revision(tmp_path / name).startswith("sha256v2:")


def test_the_digest_is_as_the_format_page_says(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    parts = [b'{"a": 1}', b"model.safetensors.index.json", b"{}"]
    parts += [b"model-1.safetensors", b"3", sha256(b"one"), b"model-2.safetensors", b"200", sha256(bytes(range(200)))]
    assert model_revision(folder) == f"sha256v2:{digest(*parts)}"


def test_the_digest_of_earlier_releases_is_as_the_format_page_says(folder: Path) -> None:
    parts = [b'{"a": 1}', b"model-1.safetensors", b"3", b"one", b"one"]
    parts += [b"model-2.safetensors", b"200", bytes(range(200)), bytes(range(200))]
    revision = f"sha256:{digest(*parts)}"
    assert model_revision(folder, like="sha256:0") == revision
    assert model_revision(folder, like=COMMIT) == model_revision(folder, like="sha256v2:0") == model_revision(folder)
    assert old_scheme_warning("plan.json", model_revision(folder)) is None
    assert "first and last MiB" in str(old_scheme_warning("plan.json", revision))


def test_what_changes_it(folder: Path) -> None:
    seen = {model_revision(folder)}

    def changes() -> bool:
        revision, known = model_revision(folder), len(seen)
        seen.add(revision)
        return len(seen) > known

    assert not changes()
    (folder / "config.json").write_text('{"a": 2}')
    assert changes()
    (folder / "model-2.safetensors").write_bytes(bytes(range(201)))
    assert changes()
    (folder / "model-2.safetensors").rename(folder / "model-3.safetensors")
    assert changes()
    (folder / "extra.bin").write_bytes(b"")
    assert changes()
    (folder / "README.md").write_text("not a weight")
    assert not changes()


@pytest.mark.usefixtures("remembers")
def test_every_byte_counts_and_a_change_that_hides_its_time_too(folder: Path, cache: Path, random_seed: int) -> None:
    """Bytes anywhere in a file, changed with its size and time of content put back as they were."""
    large = folder / "model-9.safetensors"
    draw = random.Random(random_seed)
    raw = bytearray(draw.randbytes(3 << 20))
    large.write_bytes(raw)
    before, seen = large.stat(), {model_revision(folder)}
    for place in (0, 1 << 20, len(raw) // 2, len(raw) - 1, *(draw.randrange(len(raw)) for _ in range(8))):
        raw[place] ^= draw.randrange(1, 256)
        time.sleep(0.01)  # file systems count time in ticks
        with large.open("r+b") as file:
            file.seek(place)
            file.write(raw[place : place + 1])
        os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
        seen.add(model_revision(folder))
        assert json.loads(file_digests._place(large).read_text())["sha256"] == hashlib.sha256(raw).hexdigest()
    assert len(seen) == 13


@pytest.mark.usefixtures("remembers")
def test_digests_are_remembered_and_a_broken_cache_is_not_believed(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = identify_model(folder)
    assert [one.remembered for one in first.digests] == [False, False]
    assert "2 weight files" in str(first)
    second = identify_model(folder)
    assert [one.remembered for one in second.digests] == [True, True]
    assert second.revision == first.revision
    place = file_digests._place(folder / "model-1.safetensors")
    entry = json.loads(place.read_text())
    for broken in ("", "[]", "null", "{", json.dumps(entry | {"sha256": "x"}), json.dumps(entry | {"size": 4}), "\0"):
        place.write_text(broken)
        found = identify_model(folder)
        assert [one.remembered for one in found.digests] == [False, True]
        assert found.revision == first.revision
    for useless in (str(folder / "config.json"), "/proc/nowhere", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        monkeypatch.setenv("HOME", "/proc/nowhere")
        assert model_revision(folder) == first.revision


def test_small_and_fresh_files_are_not_remembered(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_revision(folder)
    assert not cache.exists()
    monkeypatch.setattr(file_digests, "CACHED_FROM", 1)
    model_revision(folder)  # what has just been written could be written again within one tick
    assert not cache.exists()


def test_processes_share_the_cache(folder: Path, cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from profiles.checkpoints import file_digests as f\n"
        "f.CACHED_FROM, f.SETTLED_NS = 1, -10**18\n"
        "from profiles.fingerprint import model_revision\n"
        "print(*{model_revision(Path(sys.argv[1])) for _ in range(40) if not f._place(Path('x')).unlink(True)})"
    )
    command = [sys.executable, "-c", code, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=60)[0].strip() for process in running} == {model_revision(folder)}
    assert sorted(file.suffix for file in cache.iterdir()) == [".json", ".json"]


def test_reading_much_shows_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []

    @contextmanager
    def bar(total: int) -> Iterator[Callable[[int], None]]:
        shown.append(total)
        yield shown.append

    identify_model(folder, bar=bar)
    assert shown == []
    monkeypatch.setattr(fingerprint, "BAR_FROM", 100)
    identify_model(folder, bar=bar)
    assert (shown[0], sorted(shown[1:])) == (203, [3, 200])


# --- snapshots in the Hub's cache ---


def snapshot(cache: Path) -> Path:
    """As the Hub's client stores it: links to files that are named by their digests."""
    blobs, folder = cache / "models--org--name" / "blobs", cache / "models--org--name" / "snapshots" / COMMIT
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    config, weights = b"{}", bytes(range(256)) * 9000
    names = {
        "config.json": hashlib.sha1(b"blob 2\0" + config).hexdigest(),
        "model.safetensors": sha256(weights).decode(),
    }
    for (name, blob), raw in zip(names.items(), (config, weights), strict=True):
        (blobs / blob).write_bytes(raw)
        (folder / name).symlink_to(f"../../blobs/{blob}")
    return folder


def test_a_hub_snapshot_is_its_commit(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub")
    found = identify_model(folder)
    assert (found.revision, found.compared) == (COMMIT, 1)
    (tmp_path / "link").symlink_to(folder)
    assert model_revision(tmp_path / "link") == COMMIT
    (folder / "more.safetensors").write_bytes(b"a file of its own, whose name says nothing")
    assert "1 not in the Hub's cache" in str(identify_model(folder))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_file_of_the_hub_is_named(file: str, tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "hub")
    raw = bytearray((folder / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / file).resolve().write_bytes(raw)
    with pytest.raises(ModelBroken, match=rf"{file} is damaged.*remove .*blobs/"):
        model_revision(folder)


def test_folders_without_a_config(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileUnreadable, match=r"config\.json"):
            model_revision(path)
