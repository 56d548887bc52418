from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files import space


def test_room_is_asked_for_in_readable_sizes(small_disk: Path) -> None:
    space.check_space(small_disk, 8_000_000)
    with pytest.raises(OutOfSpace, match=r"8\.4 MB free, and 12 GB are needed"):
        space.check_space(small_disk, 12_000_000_000)


def test_room_is_taken(small_disk: Path) -> None:
    before = space.free_space(small_disk)
    fd = os.open(small_disk / "x", os.O_RDWR | os.O_CREAT)
    space.reserve(fd, 5_000_000)
    assert os.fstat(fd).st_size == 5_000_000
    assert before - space.free_space(small_disk) >= 5_000_000
    space.reserve(fd, 5_000_000)
    with pytest.raises(OSError, match="No space") as caught:
        space.reserve(fd, 9_000_000)
    assert caught.value.errno == errno.ENOSPC
    os.close(fd)


def test_an_empty_file_needs_none(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    space.reserve(fd, 0)
    assert os.fstat(fd).st_size == 0
    os.close(fd)


@pytest.mark.parametrize("missing", ["platform", "function", "support"])
def test_without_the_call_the_file_is_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    space._libc.cache_clear()
    if missing == "platform":
        monkeypatch.setattr(space.sys, "platform", "darwin")
    elif missing == "function":
        monkeypatch.setattr(space.ctypes, "CDLL", lambda *_, **__: object())
    else:
        monkeypatch.setattr(space, "_libc", lambda *_: lambda *_: errno.EOPNOTSUPP)
    fd = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    space.reserve(fd, 50_000_000)
    assert os.fstat(fd).st_size == 50_000_000
    assert os.fstat(fd).st_blocks * 512 < 1_000_000
    assert not space.sync_file_system(fd)
    os.close(fd)
    monkeypatch.undo()
    space._libc.cache_clear()


@pytest.mark.skipif(space.sys.platform != "linux", reason="a call of Linux")
def test_the_disk_is_told_to_begin(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(100_000))
    with path.open("r+b") as file:
        space.begin_writing(file.fileno(), 0, 100_000)
        space.begin_writing(file.fileno(), 50_000, 1 << 40)  # further than it goes
    space.begin_writing(1_000_000, 0, 1)  # no such file, and nobody is told
    assert path.read_bytes() == bytes(100_000)


@pytest.mark.skipif(
    not space.syncs_with_errors(os.uname().release), reason="a call of Linux since 5.8"
)
def test_syncs_all_of_a_file_system(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    assert space.sync_file_system(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        space.sync_file_system(fd)


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ("6.18.44", True),
        ("5.8.0-63-generic", True),
        ("10.0", True),
        ("5.7.19", False),
        ("4.18.0-553.el8_10.x86_64", False),
        ("3.10", False),
        ("Darwin", False),
        ("", False),
    ],
)
def test_whether_a_sync_of_all_tells_of_errors(release: str, told: bool) -> None:
    assert space.syncs_with_errors(release) is told


def test_without_word_of_errors_files_are_synced_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = os.uname_result(("Linux", "cluster", "4.18.0-553.el8", "#1", "x86_64"))
    monkeypatch.setattr(space.os, "uname", lambda: old)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert not space.sync_file_system(fd)
    os.close(fd)


def test_bytes_are_copied_within_the_kernel_where_that_is_possible(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"0123456789")
    source = os.open(tmp_path / "from", os.O_RDONLY)
    target = os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    os.ftruncate(target, 10)
    if space.copy_range(source, target, 3, 4):
        assert os.pread(target, 10, 0) == b"\0\0\0003456\0\0\0"
    assert not space.copy_range(source, target, 8, 4)  # beyond the end
    assert not space.copy_range(target, source, 0, 4)  # not open for writing
    os.close(source)
    os.close(target)


def test_a_full_disk_is_said_while_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(space.os, "copy_file_range", full, raising=False)
    monkeypatch.setattr(space.sys, "platform", "linux")
    with pytest.raises(OSError, match="full"):
        space.copy_range(0, 1, 0, 1)
    monkeypatch.setattr(space.sys, "platform", "darwin")
    assert not space.copy_range(0, 1, 0, 1)
