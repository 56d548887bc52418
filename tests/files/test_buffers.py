from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content


@pytest.fixture(autouse=True)
def _no_memory_of_others() -> Iterator[None]:
    buffers._free.clear()
    yield
    buffers._free.clear()


@pytest.mark.parametrize("size", [0, 1, BLOCK // 2, BLOCK // 2 + 1, BLOCK - 1, BLOCK])
def test_memory_is_as_long_as_was_asked_for(size: int) -> None:
    memory = buffers.take(size)
    memory[:] = b"x" * size
    assert bytes(memory) == b"x" * size


def test_a_blocks_memory_is_used_again_and_a_small_ones_is_not() -> None:
    for size in (BLOCK, BLOCK - 7, 100):
        buffers.give_back(buffers.take(size))
    assert len(buffers._free) == 1
    first = buffers.take(BLOCK)
    assert first.obj is not buffers.take(BLOCK).obj


def test_what_was_given_back_cant_be_read_or_given_back_again() -> None:
    memory = buffers.take(BLOCK)
    buffers.give_back(memory)
    with pytest.raises(ValueError, match="released"):
        memory[0]
    with pytest.raises(ValueError, match="released"):
        buffers.give_back(memory)
    assert len(buffers._free) == 1


def test_other_memory_isnt_kept() -> None:
    for other in (b"x" * BLOCK, memoryview(b"x" * BLOCK), memoryview(bytearray(BLOCK + 1))):
        buffers.give_back(other)
    assert not buffers._free


def test_no_more_is_kept_than_a_few() -> None:
    for memory in [buffers.take(BLOCK) for _ in range(3 * buffers.KEPT)]:
        buffers.give_back(memory)
    assert len(buffers._free) == buffers.KEPT
    buffers.drop()
    assert not buffers._free


def test_threads_never_share_memory() -> None:
    def use(mark: int) -> bool:
        memory = buffers.take(BLOCK)
        memory[:8] = mark.to_bytes(8)
        for _ in range(20):
            os.sched_yield()
        right = memory[:8] == mark.to_bytes(8)
        buffers.give_back(memory)
        return right

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(use, range(300)))


def test_reading_stops_where_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    memory = memoryview(bytearray(b"-" * 8))
    assert buffers.read_at(fd, memory[:4], 3) == 4
    assert bytes(memory) == b"3456----"
    assert buffers.read_at(fd, memory, 6) == 4
    assert bytes(memory) == b"6789----"
    assert buffers.read_at(fd, memory, 10) == 0
    os.close(fd)


@pytest.mark.parametrize("size", [0, 10, BLOCK - 1, BLOCK])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_what_is_written_is_there(
    tmp_path: Path, size: int, kind: type[bytes] | type[memoryview]
) -> None:
    data = os.urandom(size)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert buffers.write_and_compare(fd, kind(data), 5)
    assert os.pread(fd, size + 1, 5) == data
    os.close(fd)


@pytest.mark.parametrize("at", [0, 300_000, BLOCK - 1])
@pytest.mark.parametrize("wrong", ["another byte", "too little"])
def test_what_the_disk_took_wrongly_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, wrong: str
) -> None:
    data = os.urandom(BLOCK)
    pwrite = os.pwrite

    def disk(fd: int, piece: Content, offset: int) -> int:
        if offset <= at < offset + len(piece):
            taken = bytearray(piece)
            if wrong == "another byte":
                taken[at - offset] ^= 1
            else:
                del taken[at - offset :]
            pwrite(fd, taken, offset)
            return len(piece)
        return pwrite(fd, piece, offset)

    monkeypatch.setattr(os, "pwrite", disk)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert not buffers.write_and_compare(fd, data, 0)
    os.close(fd)


def test_a_write_that_takes_less_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    buffers.write_at(fd, b"0123456789", 1)
    assert os.pread(fd, 20, 0) == b"\x000123456789"
    os.close(fd)
