"""Saving is atomic, and refuses in time what it cannot write."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from documents import example_plan, example_profile

from profiles import canonical
from profiles.errors import FileUnwritable
from profiles.files import check_writable
from profiles.store import load_plan, save

OLD, NEW = example_plan(), example_plan().model_copy(update={"commit": "abc"})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("call", ["replace", "fsync", "open"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_dies_leaves_the_old_file(
    call: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    save(OLD, path)
    before = contents(tmp_path)

    def die(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, die)
    with pytest.raises(FileUnwritable if isinstance(failure, OSError) else KeyboardInterrupt):
        save(NEW, path)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    save(NEW, path)
    assert load_plan(path) == NEW
    assert list(contents(tmp_path)) == ["plan.json"]


def test_until_the_last_step_the_path_holds_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    save(OLD, path)
    real, seen = os.replace, []

    def watch(source: Path, target: Path) -> None:
        seen.append((load_plan(path), Path(source).read_bytes(), Path(source).parent))
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save(NEW, path)
    assert seen == [(OLD, canonical.to_bytes(NEW), tmp_path)]


def unwritable(folder: Path) -> list[Path]:
    (folder / "file").write_text("")
    return [
        folder / "missing" / "plan.json",
        folder / "file" / "plan.json",
        folder,
        folder / ("x" * 300),
        Path("/proc/plan.json"),
        Path("/dev/null"),
    ]


@pytest.mark.parametrize("write", [check_writable, lambda path: save(OLD, path)], ids=["check_writable", "save"])
def test_unwritable_paths(write: Callable[[Path], None], tmp_path: Path) -> None:
    paths = unwritable(tmp_path)
    before = contents(tmp_path)
    for path in paths:
        with pytest.raises(FileUnwritable) as caught:
            write(path)
        assert str(path) in str(caught.value)
    assert contents(tmp_path) == before
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is write-protected from root")
def test_a_write_protected_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save(OLD, path)
    path.chmod(0o400)
    with pytest.raises(FileUnwritable, match="write-protected"):
        check_writable(path)


def test_check_writable_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    check_writable(path)
    assert contents(tmp_path) == {}
    path.write_text("something")
    check_writable(path)
    assert contents(tmp_path) == {"profile.json": b"something"}


def test_modes_and_links_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "plan.json", tmp_path / "link.json"
    save(OLD, path)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o600)
    link.symlink_to(path)
    save(NEW, link)
    assert link.is_symlink()
    assert load_plan(path) == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_both_kinds_can_be_saved(tmp_path: Path) -> None:
    for document in (example_profile(), example_plan()):
        save(document, tmp_path / "document.json")
        assert (tmp_path / "document.json").read_bytes() == canonical.to_bytes(document)
