from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import SourceChanged, UnsafePath
from sleap_rtc.files.hashing import hash_file, hash_open, stamp_of

from .conftest import write


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 9 * BLOCK + 17])
@pytest.mark.parametrize("processors", [2, 64])
def test_blocks_and_whole_in_one_pass(
    tmp_path: Path, size: int, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    path = tmp_path / "x"
    write(path, size)
    told: list[int] = []
    entry, hashes = hash_file(path, as_path="models/x", progress=told.append)
    data = path.read_bytes()
    assert hashes.blake3 == blake3(data).hexdigest()
    assert (entry.path, entry.size) == ("models/x", size)
    assert [entry.block_hash(index) for index in range(entry.block_count)] == [
        blake3(data[at : at + BLOCK]).digest() for at in range(0, size, BLOCK)
    ]
    assert sum(told) == size


def test_the_position_doesnt_matter(tmp_path: Path) -> None:
    write(tmp_path / "x", 100)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    os.lseek(fd, 50, os.SEEK_SET)
    stamp, hashes = hash_open(fd, name="x")
    assert hashes.blake3 == blake3((tmp_path / "x").read_bytes()).hexdigest()
    assert stamp == stamp_of(fd)
    os.close(fd)


@pytest.mark.parametrize("change", ["grow", "shrink", "same size"])
def test_a_file_that_changes_meanwhile_has_no_hash(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    write(path, 9 * BLOCK)

    def meddle(_: int) -> None:
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "shrink":
            os.truncate(path, 5 * BLOCK)
        else:
            with path.open("r+b") as file:
                file.write(b"other")
            os.utime(path, ns=(1, 1))  # a clock too coarse to tell must not hide it here

    with pytest.raises(SourceChanged) as caught:
        hash_file(path, as_path="x", progress=meddle)
    assert str(path) in caught.value.message


def test_what_progress_raises_ends_the_hashing(tmp_path: Path) -> None:
    write(tmp_path / "x", 9 * BLOCK)
    told: list[int] = []

    def stop(size: int) -> None:
        told.append(size)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        hash_file(tmp_path / "x", as_path="x", progress=stop)
    assert len(told) == 1


def test_links_are_not_hashed(tmp_path: Path) -> None:
    write(tmp_path / "x", 1)
    (tmp_path / "link").symlink_to("x")
    with pytest.raises(UnsafePath):
        hash_file(tmp_path / "link", as_path="x")


def test_a_hard_link_or_a_new_mode_is_no_new_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write(path, 1)
    fd = os.open(path, os.O_RDONLY)
    before = stamp_of(fd)
    (tmp_path / "second").hardlink_to(path)
    path.chmod(0o600)
    assert stamp_of(fd).same_content(before)
    os.utime(path, ns=(5, 5))
    assert not stamp_of(fd).same_content(before)
    os.close(fd)
