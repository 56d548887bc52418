"""What is read of a file before it is sent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import SourceChanged
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage.slices import is_block, sha256_of
from sleap_rtc.storage.wire import FileSlice

SIZE = 2 * BLOCK + 17


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.mark.parametrize(("offset", "size"), [(0, SIZE), (BLOCK, BLOCK + 17), (0, 0)])
def test_a_part_is_hashed_and_compared(path: Path, offset: int, size: int) -> None:
    entry, _ = hash_file(path, as_path="file")
    with path.open("rb") as file:
        piece = FileSlice(fd=file.fileno(), offset=offset, size=size)
        digest = sha256_of(piece, name="file", entry=entry)
    assert digest == hashlib.sha256(path.read_bytes()[offset : offset + size]).digest()


def test_another_content_or_a_shorter_one_has_changed(path: Path) -> None:
    entry, _ = hash_file(path, as_path="file")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(SourceChanged):
        sha256_of(FileSlice(fd=file.fileno(), offset=0, size=SIZE), name="file", entry=entry)
    with path.open("rb") as file, pytest.raises(SourceChanged):
        sha256_of(FileSlice(fd=file.fileno(), offset=0, size=SIZE + 1), name="file")


def test_who_is_asked_may_end_it(path: Path) -> None:
    class Enough(Exception):
        pass

    def end() -> None:
        raise Enough

    with path.open("rb") as file:
        piece = FileSlice(fd=file.fileno(), offset=0, size=SIZE)
        with pytest.raises(Enough):
            sha256_of(piece, name="file", going_on=end)


def test_a_block_that_isnt_known_is_any() -> None:
    assert is_block(None, 0, b"anything")
