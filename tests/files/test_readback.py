from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, FileEntry, package
from sleap_rtc.files.readback import ReadBack


class Clock:
    now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def read(clock: Clock) -> ReadBack:
    """Of two files of two blocks, both just written."""
    entries = [FileEntry(path=name, size=2 * BLOCK, hashes=bytes(64)) for name in ("a", "b")]
    made = ReadBack(Layout(package(entries)), clock=clock)
    for file in (0, 1):
        made.wrote(file)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


def changed(path: Path, at: int) -> os.stat_result:
    os.utime(path, ns=(at, at))
    return path.stat()


def right(read: ReadBack) -> list[int]:
    return [number for number in range(4) if number in read]


def test_what_was_read_back_stays_until_it_is_written_anew(read: ReadBack, path: Path) -> None:
    assert right(read) == []
    read.add([0, 2, 3])
    for file in (0, 1):
        read.look(file, changed(path, 1_000))
    assert right(read) == [0, 2, 3]
    read.drop([2])
    assert right(read) == [0, 3]


def test_a_file_that_something_else_writes_to_is_read_again(read: ReadBack, path: Path) -> None:
    read.add(range(4))
    read.look(0, changed(path, 999))
    read.look(1, changed(path, 1_001))
    assert right(read) == [0, 1]


def test_the_last_write_counts_whoever_tells_of_it_first(
    read: ReadBack, clock: Clock, path: Path
) -> None:
    for now in (3_000, 2_000):
        clock.now = now
        read.wrote(0)
    read.add([0, 1])
    read.look(0, changed(path, 3_000))
    assert right(read) == [0, 1]


def test_a_file_that_was_never_written_here_is_read(path: Path) -> None:
    entry = FileEntry(path="a", size=2 * BLOCK, hashes=bytes(64))
    read = ReadBack(Layout(package([entry])))
    read.add([0, 1])
    read.look(0, changed(path, 0))
    assert [number for number in range(2) if number in read] == []


def test_the_system_takes_both_times_from_one_clock(path: Path) -> None:
    entry = FileEntry(path="a", size=2 * BLOCK, hashes=bytes(64))
    read = ReadBack(Layout(package([entry])))
    read.add([0, 1])
    path.write_bytes(b"ours")
    read.wrote(0)
    read.look(0, path.stat())
    assert 0 in read
    later = time.time_ns() + 10**9
    read.look(0, changed(path, later))
    assert 0 not in read
