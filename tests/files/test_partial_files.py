from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import UnsafePath
from sleap_rtc.files import buffers, partial_files
from sleap_rtc.files.packing import BlockReader
from sleap_rtc.files.partial import folder_of
from sleap_rtc.files.partial_files import SMALL, PartialFiles, is_small

from .conftest import MakePacked
from .stores import files_of, fill, open_store


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_that_is_not_at_its_place_any_more_is_not_handed_over(
    make_packed: MakePacked, tmp_path: Path, gone: bool
) -> None:
    packed = make_packed({"a": 2 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    path = files_of(store) / "a"
    path.unlink()
    if not gone:
        path.write_bytes(bytes(2 * BLOCK))
    with pytest.raises(UnsafePath, match="took its place"):
        store.verify()
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    assert store.verify() == [0, 1]
    fill(store, packed)
    assert store.verify() == []
    store.finish().release()


def test_many_small_files_are_synced_together(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({f"{n % 40}/{n}": n % 50 for n in range(400)})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    assert store.verify() == []
    staged = store.finish()
    assert sum(1 for path in staged.path.rglob("*") if path.is_file()) == 400
    staged.release()


def test_names_of_small_files_are_synced_with_them(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a/b/1": 5, "2": 6})
    store = open_store(tmp_path / "incoming", packed)
    synced: list[Path] = []
    monkeypatch.setattr(partial_files, "sync_directory", synced.append)
    fill(store, packed)
    store.sync()
    files = files_of(store)
    assert synced == [files / "a/b", files / "a", files, files.parent, files.parent.parent]
    store.close()


def set_trap(trap: str, files: Path, outside: Path) -> None:
    """Put something else where the file ``a/x`` would be."""
    if trap == "folder link":
        (files / "a").symlink_to(outside)
    else:
        (files / "a").mkdir()
        if trap == "link":
            (files / "a" / "x").symlink_to(outside / "x")
        elif trap == "hard link":
            (files / "a" / "x").hardlink_to(outside / "x")
        else:
            os.mkfifo(files / "a" / "x")


@pytest.mark.parametrize("trap", ["link", "folder link", "hard link", "fifo"])
def test_what_stands_in_a_small_files_place_is_never_written_through(
    make_packed: MakePacked, tmp_path: Path, trap: str
) -> None:
    packed = make_packed({"a/x": 10})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    store.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("kept")
    files = files_of(store)
    shutil.rmtree(files / "a")
    set_trap(trap, files, outside)
    with pytest.raises(UnsafePath):
        open_store(tmp_path / "incoming", packed)
    assert (outside / "x").read_text() == "kept"


@pytest.mark.parametrize("trap", ["link", "folder link", "hard link", "fifo"])
def test_what_isnt_ours_is_never_written_through(
    make_packed: MakePacked, tmp_path: Path, trap: str
) -> None:
    packed = make_packed({"a/x": BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    store.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("kept")
    files = folder_of(tmp_path / "incoming", packed.package.id, "there") / "files"
    shutil.rmtree(files / "a")
    set_trap(trap, files, outside)
    with pytest.raises(UnsafePath):
        open_store(tmp_path / "incoming", packed)
    assert (outside / "x").read_text() == "kept"
    shutil.rmtree(files / "a") if trap != "folder link" else (files / "a").unlink()
    open_store(tmp_path / "incoming", packed).close()


@pytest.mark.parametrize("size", [0, BLOCK, 3 * BLOCK])
def test_a_file_of_the_wrong_length_is_mended(
    make_packed: MakePacked, tmp_path: Path, size: int
) -> None:
    packed = make_packed({"a": BLOCK + 10, "empty": 0})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    os.truncate(files_of(store) / "a", size)
    os.truncate(files_of(store) / "empty", 5)
    bad = store.verify()
    assert bad == {0: [0, 1], BLOCK: [1], 3 * BLOCK: []}[size]
    fill(store, packed, bad)
    assert store.verify() == []
    staged = store.finish()
    for name in ("a", "empty"):
        assert (staged.path / name).read_bytes() == (tmp_path / "source" / name).read_bytes()
    staged.release()


def test_what_was_read_back_is_not_read_again(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 3 * BLOCK + 5, "b": 2 * BLOCK, "small": 9})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [0, 1, 4])
    store.close()
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed, [2, 3, 5, 6])
    read: list[int] = []
    read_at = buffers.read_at

    def watched(fd: int, into: memoryview, offset: int) -> int:
        read.append(offset)
        return read_at(fd, into, offset)

    monkeypatch.setattr(buffers, "read_at", watched)
    told: list[int] = []
    assert store.verify(progress=told.append, threads=1) == []
    # What came in the attempt before, and the small file.
    assert read == [0, BLOCK, 0, 0]
    assert sum(told) == packed.package.size
    store.finish().release()


def test_what_the_disk_took_wrongly_is_found(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 3 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    write_at = buffers.write_at
    with monkeypatch.context() as patch:
        patch.setattr(buffers, "write_at", lambda fd, data, at: write_at(fd, data[:-1], at))
        fill(store, packed, [1])
    fill(store, packed, [0, 2])
    assert store.verify() == [1]
    assert store.done == b"\x01\x00\x01"
    fill(store, packed, [1])
    assert store.verify() == []
    store.finish().release()


def test_a_file_that_something_else_writes_to_is_read_whole(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed({"a": 3 * BLOCK, "b": 2 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    fill(store, packed)
    path = files_of(store) / "a"
    with path.open("r+b") as file:
        file.seek(2 * BLOCK + 7)
        file.write(b"not ours")
    # As late as such a write is as a rule: some systems' clocks have long steps.
    later = time.time_ns() + 10**9
    os.utime(path, ns=(later, later))
    assert store.verify() == [2]
    fill(store, packed, [2])
    assert store.verify() == []
    store.finish().release()


def test_a_block_that_is_doubted_is_read(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 2 * BLOCK, "b": 9})
    (tmp_path / "files").mkdir()
    files = PartialFiles(tmp_path / "files", Layout(packed.package))
    blocks = BlockReader(packed)
    files.write(0, blocks.read(0, 0))
    files.write(1, bytes(BLOCK))
    files.write(2, blocks.read(1, 0))
    blocks.close()
    told: list[int] = []
    # What was read back as it was written is taken for right: whoever wrote it had hashed it.
    assert files.unsure(range(3), told.append) == []
    assert sum(told) == packed.package.size
    files.doubt([1])
    assert files.unsure(range(3)) == [1]
    files.trust([1])
    assert files.unsure(range(3)) == []
    assert files.wrong(range(3)) == [1]
    files.close()


def test_only_files_of_one_block_are_made_in_one_step(make_packed: MakePacked) -> None:
    packed = make_packed({"empty": 0, "large": SMALL + 1, "one": 1, "small": SMALL})
    assert [is_small(entry) for entry in packed.package.files] == [False, False, True, True]
    assert SMALL <= BLOCK
