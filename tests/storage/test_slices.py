"""What is read of a file before it is sent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import get_args

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import SourceChanged
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import Checksum
from sleap_rtc.storage.slices import checksum_of_slice, is_block
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
        found = {
            checksum: checksum_of_slice(piece, checksum, name="file", entry=entry)
            for checksum in get_args(Checksum)
        }
    data = path.read_bytes()[offset : offset + size]
    assert found == {
        "sha256": hashlib.sha256(data).digest(),
        "crc32c": checksum_of("crc32c", data),
    }


def test_another_content_or_a_shorter_one_has_changed(path: Path) -> None:
    entry, _ = hash_file(path, as_path="file")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with path.open("rb") as file:
        whole = FileSlice(fd=file.fileno(), offset=0, size=SIZE)
        longer = FileSlice(fd=file.fileno(), offset=0, size=SIZE + 1)
        with pytest.raises(SourceChanged):
            checksum_of_slice(whole, "crc32c", name="file", entry=entry)
        with pytest.raises(SourceChanged):
            checksum_of_slice(longer, "crc32c", name="file")


def test_who_is_asked_may_end_it(path: Path) -> None:
    class Enough(Exception):
        pass

    def end() -> None:
        raise Enough

    with path.open("rb") as file:
        piece = FileSlice(fd=file.fileno(), offset=0, size=SIZE)
        with pytest.raises(Enough):
            checksum_of_slice(piece, "crc32c", name="file", going_on=end)


def test_a_block_that_isnt_known_is_any() -> None:
    assert is_block(None, 0, b"anything")
