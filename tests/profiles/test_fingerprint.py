"""A model folder's revision: the Hub's commit, or a fingerprint that changes with whatever it covers."""

import hashlib
from pathlib import Path

import pytest

from profiles.errors import FileUnreadable
from profiles.fingerprint import EDGE, model_revision


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "model-2.safetensors").write_bytes(bytes(range(200)))
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    return tmp_path


def test_a_hub_snapshot_is_its_commit(tmp_path: Path) -> None:
    commit = "b234b804b114d9e37bb655e11cbbb5f5e971b7a9"
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert model_revision(snapshot) == commit
    (tmp_path / "link").symlink_to(snapshot)
    assert model_revision(tmp_path / "link") == commit


@pytest.mark.parametrize("name", ["snapshots/main", "models/b234b804b114d9e37bb655e11cbbb5f5e971b7a9"])
def test_other_folders_get_a_fingerprint(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "config.json").write_text("{}")
    assert model_revision(tmp_path / name).startswith("sha256:")


def test_the_fingerprint_is_as_format_page_says(folder: Path) -> None:
    parts = [b'{"a": 1}', b"model-1.safetensors", b"3", b"one", b"one"]
    parts += [b"model-2.safetensors", b"200", bytes(range(200)), bytes(range(200))]
    raw = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    assert model_revision(folder) == "sha256:" + hashlib.sha256(raw).hexdigest()


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


def test_both_ends_of_a_large_file_count(folder: Path) -> None:
    large = folder / "model-9.safetensors"
    raw = bytearray(3 * EDGE)
    seen = set()
    for place in (0, EDGE - 1, 2 * EDGE, 3 * EDGE - 1):
        raw[place] ^= 1
        large.write_bytes(raw)
        seen.add(model_revision(folder))
    assert len(seen) == 4
    raw[EDGE] ^= 1  # the middle is not read: that is the price of a fingerprint that takes no time
    large.write_bytes(raw)
    assert model_revision(folder) in seen


def test_folders_without_a_config(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileUnreadable, match=r"config\.json"):
            model_revision(path)
