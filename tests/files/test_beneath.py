from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleap_rtc.errors import UnsafePath
from sleap_rtc.files.beneath import Root, open_file


def test_opens_and_makes_files_with_their_folders(tmp_path: Path) -> None:
    root = Root(tmp_path)
    fd = root.open("a/b/c", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"here")
    os.close(fd)
    fd = root.open("a/b/c")
    assert os.read(fd, 9) == b"here"
    assert os.get_blocking(fd)
    os.close(fd)
    root.close()
    root.close()


def open_files() -> int:
    """How many this process has open; 0 where that can't be told."""
    told = Path("/proc/self/fd")
    return len(list(told.iterdir())) if told.exists() else 0


def test_more_folders_than_stay_open(tmp_path: Path) -> None:
    before = open_files()
    root = Root(tmp_path)
    for _ in range(2):
        for number in range(150):
            os.close(root.open(f"{number}/x/y", os.O_RDWR | os.O_CREAT))
    assert open_files() - before < 140
    root.close()


def test_reading_makes_nothing(tmp_path: Path) -> None:
    root = Root(tmp_path)
    with pytest.raises(FileNotFoundError):
        root.open("a/b")
    assert list(tmp_path.iterdir()) == []
    root.close()


@pytest.mark.parametrize("path", ["link", "folder/x", "deep/folder/x", "deep/link"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_no_link_is_followed(tmp_path: Path, path: str, flags: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    for place in (inside, inside / "deep"):
        (place / "link").symlink_to(outside / "x")
        (place / "folder").symlink_to(outside)
    root = Root(inside)
    with pytest.raises(UnsafePath, match="link"):
        root.open(path, flags)
    root.close()
    assert (outside / "x").read_text() == "secret"


def test_looking_opens_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "top/a").mkdir(parents=True)
    (tmp_path / "top/a/x").write_bytes(b"12345")
    (tmp_path / "top/link").symlink_to(tmp_path / "top/a")
    (tmp_path / "top/file").symlink_to(tmp_path / "top/a/x")
    os.mkfifo(tmp_path / "top/fifo")
    root = Root(tmp_path / "top")
    found = root.look("a/x")
    assert found is not None
    assert (found.st_size, found.st_nlink) == (5, 1)
    assert root.look("a/y") is None
    assert root.look("b/x") is None
    assert not (tmp_path / "top/b").exists()
    for path in ("link/x", "file", "fifo", "a"):
        with pytest.raises(UnsafePath):
            root.look(path)
    root.close()


def test_only_regular_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    root = Root(tmp_path)
    for name in ("folder", "fifo"):
        with pytest.raises(UnsafePath, match="regular"):
            root.open(name)
        with pytest.raises(UnsafePath, match="regular"):
            open_file(tmp_path / name)
    with pytest.raises(UnsafePath):
        root.open("folder", os.O_RDWR | os.O_CREAT)
    with pytest.raises(UnsafePath):
        root.open("file/below")
    root.close()


def test_a_link_given_as_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(UnsafePath, match="link"):
        open_file(tmp_path / "link")
