"""Blocks of zeros: which they are, and whether the disk has holes for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files import holes
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.holes import empty_blocks, filled_runs, is_empty, is_hole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Content, two empty blocks, content, one empty block, and a short one of zeros."""
    made = tmp_path / "file"
    with made.open("wb") as file:
        file.write(b"1" * BLOCK)
        file.seek(3 * BLOCK)
        file.write(b"2" * BLOCK)
        file.truncate(5 * BLOCK + 10)
    return made


def test_empty_blocks_are_known_by_their_hash(path: Path) -> None:
    entry, _ = hash_file(path, as_path="file")
    assert empty_blocks(entry) == [1, 2, 4]
    assert [is_empty(entry, block) for block in range(6)] == [
        *(False, True, True),
        *(False, True, False),  # the last one is short
    ]
    assert list(filled_runs(entry)) == [(0, BLOCK), (3 * BLOCK, BLOCK), (5 * BLOCK, 10)]


def test_a_file_of_content_alone_is_one_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1" * (BLOCK + 5))
    entry, _ = hash_file(tmp_path / "file", as_path="file")
    assert (empty_blocks(entry), list(filled_runs(entry))) == ([], [(0, BLOCK + 5)])
    (tmp_path / "empty").write_bytes(b"")
    entry, _ = hash_file(tmp_path / "empty", as_path="empty")
    assert (empty_blocks(entry), list(filled_runs(entry))) == ([], [])


def test_holes_are_those_of_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        found = [is_hole(fd, block * BLOCK, BLOCK) for block in range(5)]
        assert found in ([False, True, True, False, True], [False] * 5)  # not every disk has holes
        assert not is_hole(fd, 5 * BLOCK, BLOCK)  # beyond its end is no hole
        os.pwrite(fd, bytes(1), 2 * BLOCK + 5)
        assert not is_hole(fd, 2 * BLOCK, BLOCK)
        monkeypatch.delattr(holes.os, "SEEK_DATA")
        assert not is_hole(fd, BLOCK, BLOCK)
    finally:
        os.close(fd)
