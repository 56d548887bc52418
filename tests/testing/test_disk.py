"""The disk that can be cut off shows what a real one would."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from sleap_rtc.testing.disk import Change, Killed, Loses, WatchedDisk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "old").write_text("old")
    return folder


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def found(disk: WatchedDisk, count: int, loses: Loses, tmp_path: Path) -> dict[str, str]:
    target = tmp_path / "found"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    disk.after_power_cut(count, target, loses=loses)
    return {
        str(path.relative_to(target)): path.read_text()
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }


def test_what_was_not_synced_is_lost(root: Path, tmp_path: Path) -> None:
    with WatchedDisk(root) as disk:
        (root / "new").write_text("new")
        sync(root / "new")
        (root / "new").rename(root / "old")
        sync(root)
    assert [change.what for change in disk.changes] == ["create", "sync", "rename", "sync"]
    for count in range(4):
        assert found(disk, count, "unsynced", tmp_path) == {"old": "old"}
    assert found(disk, 4, "unsynced", tmp_path) == {"old": "new"}
    assert found(disk, 1, "data", tmp_path) == {"new": "", "old": "old"}
    assert found(disk, 3, "data", tmp_path) == {"old": "new"}


def test_a_rename_before_its_data_shows_nothing(root: Path, tmp_path: Path) -> None:
    with WatchedDisk(root) as disk:
        (root / "new").write_text("new")
        (root / "new").replace(root / "old")
        sync(root)
    assert found(disk, 3, "unsynced", tmp_path) == {"old": ""}


def test_a_directory_is_there_once_the_one_above_it_is_synced(root: Path, tmp_path: Path) -> None:
    with WatchedDisk(root) as disk:
        (root / "a").mkdir()
        (root / "a" / "f").touch()
        (root / "a" / "g").hardlink_to(root / "a" / "f")
        (root / "a" / "s").symlink_to("f")
        sync(root / "a")
        sync(root)
    assert found(disk, 5, "unsynced", tmp_path) == {"old": "old"}
    assert set(found(disk, 6, "unsynced", tmp_path)) == {"old", "a/f", "a/g", "a/s"}
    assert disk.changes[3] == Change("symlink", "a/s", "f")


def test_what_was_removed_may_come_back(root: Path, tmp_path: Path) -> None:
    (root / "folder").mkdir()
    (root / "folder" / "f").write_text("f")
    with WatchedDisk(root) as disk:
        shutil.rmtree(root / "folder")
        (root / "old").unlink()
    assert [change.path for change in disk.changes] == ["folder/f", "folder", "old"]
    assert set(found(disk, 3, "unsynced", tmp_path)) == {"folder/f", "old"}
    assert found(disk, 3, "data", tmp_path) == {}


def test_a_dead_process_changes_nothing_more(root: Path) -> None:
    with WatchedDisk(root, kill_at=1) as disk:
        try:
            (root / "a").touch()
            with contextlib.suppress(OSError):
                (root / "b").touch()
        except Killed:
            with pytest.raises(Killed):
                (root / "a").unlink()
    assert disk.killed
    assert sorted(path.name for path in root.iterdir()) == ["a", "old"]
    (root / "b").touch()  # nothing is watched any more


def test_reading_and_other_places_are_not_watched(root: Path, tmp_path: Path) -> None:
    with WatchedDisk(root, kill_at=0):
        assert (root / "old").read_text() == "old"
        (tmp_path / "elsewhere").write_text("x")
        sync(tmp_path)
        (tmp_path / "elsewhere").unlink()
