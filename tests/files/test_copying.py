"""A file is copied and hashed in one pass, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.errors import OutOfSpace, SourceChanged, UnsafePath
from sleap_rtc.files import copying
from sleap_rtc.files.copying import copy_hashed
from sleap_rtc.files.hashcache import HashCache

SIZES = [0, 1, (1 << 20) + 1, 37 << 20]


def content_of(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.fixture(params=["kernel", "refused", "nothing", "by hand"])
def ways(request, monkeypatch):
    """Every way in which bytes can get there."""
    if request.param == "by hand":
        monkeypatch.delattr(os, "copy_file_range")
    elif request.param == "refused":

        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "no")

        monkeypatch.setattr(copying, "_in_kernel", refuse)
    elif request.param == "nothing":
        monkeypatch.setattr(copying, "_in_kernel", lambda *_: 0)
    return request.param


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_the_same_and_its_hash_is_known(tmp_path, ways, size):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content_of(size))
    done: list[int] = []
    copied = copy_hashed(source, target, progress=done.append)
    assert target.read_bytes() == content_of(size)
    assert copied.hashes.blake3 == blake3(content_of(size)).hexdigest()
    assert copied.stamp.size == sum(done) == size


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no such advice")
def test_the_disk_begins_with_each_piece_as_soon_as_it_is_copied(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(content_of(SIZES[-1]))
    begun: list[tuple[int, int]] = []

    def advise(fd: int, offset: int, length: int, _: int) -> None:
        assert os.fstat(fd).st_size >= offset + length  # it is there by now
        begun.append((offset, length))
        raise OSError(errno.EINVAL, "not here")  # and nothing hangs on it

    monkeypatch.setattr(os, "posix_fadvise", advise)
    copy_hashed(source, tmp_path / "target")
    assert len(begun) > 1
    assert begun[0][0] == 0
    assert sum(length for _, length in begun) == SIZES[-1]


def test_a_remembered_hash_is_used(tmp_path):
    cache = HashCache(tmp_path / "cache", now_ns=lambda: time.time_ns() + 10_000_000_000)
    source = tmp_path / "source"
    source.write_bytes(content_of(9 << 20))
    first = copy_hashed(source, tmp_path / "a", cache=cache)
    done: list[int] = []
    second = copy_hashed(source, tmp_path / "b", cache=cache, progress=done.append)
    assert first.hashes == second.hashes
    assert done == [9 << 20]
    assert (tmp_path / "b").read_bytes() == content_of(9 << 20)


def test_nothing_is_replaced(tmp_path):
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        copy_hashed(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"old"


def test_links_and_folders_are_refused(tmp_path):
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "link").symlink_to("source")
    for name in ("link", "."):
        with pytest.raises(UnsafePath):
            copy_hashed(tmp_path / name, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("change", [b"longer than before" * 100, b""])
def test_a_source_that_changes_leaves_nothing(tmp_path, change):
    source = tmp_path / "source"
    source.write_bytes(content_of(9 << 20))
    changed: list[int] = []

    def change_it(more: int) -> None:
        if not changed:
            changed.append(more)
            source.write_bytes(change)

    with pytest.raises(SourceChanged):
        copy_hashed(source, tmp_path / "target", progress=change_it)
    assert not (tmp_path / "target").exists()


def test_an_interrupted_copy_leaves_nothing(tmp_path):
    (tmp_path / "source").write_bytes(content_of(40 << 20))

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_hashed(tmp_path / "source", tmp_path / "target", progress=interrupt)
    assert not (tmp_path / "target").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, capture_output=True, check=False).returncode
    ):
        pytest.skip("this user can't mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_leaves_nothing(tmp_path, small_disk):
    (tmp_path / "source").write_bytes(content_of(9 << 20))
    with pytest.raises(OutOfSpace):
        copy_hashed(tmp_path / "source", small_disk / "target")
    assert list(small_disk.iterdir()) == []


def test_a_clone_is_asked_for_first(tmp_path, monkeypatch):
    """Where the file system shares blocks, no byte is written."""
    (tmp_path / "source").write_bytes(b"content")
    asked = []

    def clone(source: int, target: int) -> bool:
        asked.append(os.fstat(target).st_size)
        os.write(target, b"content")
        return True

    monkeypatch.setattr(copying, "clone", clone)
    assert copy_hashed(tmp_path / "source", tmp_path / "target").how == "clone"
    assert asked == [0]


def test_a_file_system_without_clones_says_so(tmp_path, small_disk):
    (small_disk / "a").write_bytes(b"x")
    with (small_disk / "a").open("rb") as source, (small_disk / "b").open("wb") as target:
        assert copying.clone(source.fileno(), target.fileno()) is False
