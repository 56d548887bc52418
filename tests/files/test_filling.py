from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files import filling, partial_files
from sleap_rtc.files.filling import fill
from sleap_rtc.files.partial import PartialStore
from sleap_rtc.files.partial_files import SMALL

from .conftest import MakePacked
from .stores import SIZES, abandon, open_store
from .stores import fill as put


def test_what_is_here_under_other_names_is_copied(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed(SIZES)
    held = tmp_path / "held"
    held.mkdir()
    source = tmp_path / "source"
    shutil.copyfile(source / "a/x.bin", held / "one")
    shutil.copyfile(source / "a/y", held / "two")
    changed = bytearray((source / "z/deep/er/z").read_bytes())
    changed[-1] ^= 1  # its last block differs
    (held / "three").write_bytes(changed)
    store = open_store(tmp_path / "incoming", packed)
    told: list[int] = []
    assert fill(store, [held], progress=told.append) == sum(told)
    assert sum(told) == SIZES["a/x.bin"] + 1 + BLOCK
    assert store.here == sum(told)
    assert store.done == b"\x01\x01\x01\x01\x01\x01\x00"
    # It is journalled as if it had been fetched.
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done == b"\x01\x01\x01\x01\x01\x01\x00"
    assert fill(store, [held]) == 0
    put(store, packed, [6])
    assert store.verify() == []
    staged = store.finish()
    for name in SIZES:
        assert (staged.path / name).read_bytes() == (source / name).read_bytes()
        assert (staged.path / name).stat().st_nlink == 1
    staged.release()


def test_what_another_transfer_has_so_far_is_copied(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    one = make_packed({"big": 4 * BLOCK, "old.yaml": 5})
    first = open_store(tmp_path / "incoming", one)
    put(first, one, [1, 3])
    other = make_packed({"big": 4 * BLOCK, "new.yaml": 6})
    second = open_store(tmp_path / "incoming", other)
    assert fill(second, []) == 2 * BLOCK
    assert second.done == b"\x00\x01\x00\x01\x00"
    first.close()
    put(second, other, [0, 2, 4])
    assert second.verify() == []
    second.finish().release()


def test_what_is_likely_right_is_copied_at_once_and_checked_at_the_end(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 40 * BLOCK + 7, "b": 3 * BLOCK, "short": 5})
    held = tmp_path / "theirs"
    held.mkdir()
    for entry in packed.package.files:
        data = bytearray((tmp_path / "source" / entry.path).read_bytes())
        if entry.path == "a":
            data[20 * BLOCK] ^= 1
        (held / entry.path).write_bytes(data)
    told: list[int] = []
    calls: list[int] = []
    copy_range = partial_files.copy_range

    def counted(source: int, target: int, offset: int, size: int) -> bool:
        calls.append(size)
        return copy_range(source, target, offset, size)

    monkeypatch.setattr(partial_files, "copy_range", counted)
    store = open_store(tmp_path / "incoming", packed)
    right = packed.package.size - BLOCK
    assert fill(store, [held], progress=told.append, likely=True) == sum(told) == right
    assert sorted(calls) == [3 * BLOCK, 8 * BLOCK + 7, 16 * BLOCK, 16 * BLOCK]
    # The one block that is wrong there is wrong here, and is noticed.
    assert [number for number, here in enumerate(store.done) if not here] == [20]
    put(store, packed, [20])
    # What was read back already isn't again, copied or fetched; the small file is.
    read: list[int] = []
    files = store._files
    wrong = files.wrong
    monkeypatch.setattr(files, "wrong", lambda ns, *more: (read.extend(ns), wrong(ns, *more))[1])
    assert store.verify() == []
    assert read == [44]
    store.finish().release()


def pass_a_tick(folder: Path) -> None:
    """Wait until the system gives files another time: it goes on some 250 times a second."""
    probe = folder / "tick"
    probe.touch()
    first = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns == first:
        probe.touch()


def test_what_rots_behind_a_check_is_noticed_when_it_is_written_anew(
    make_packed: MakePacked, tmp_path: Path
) -> None:
    packed = make_packed({"a": 2 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    assert fill(store, [tmp_path / "source"], likely=True) == 2 * BLOCK
    put(store, packed, [1])
    pass_a_tick(tmp_path)
    with (store._path / "a").open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"rot")
    assert store.verify() == [1]
    store.discard()


def test_what_is_cut_behind_a_check_is_noticed(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 2 * BLOCK, "b": 2 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)
    assert fill(store, [tmp_path / "source"], likely=True) == 4 * BLOCK
    pass_a_tick(tmp_path)
    os.truncate(store._path / "a", BLOCK)
    assert store.verify() == [1]
    store.discard()


@pytest.mark.parametrize("likely", [True, False])
def test_many_small_files_are_written_together(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, likely: bool
) -> None:
    monkeypatch.setattr(filling, "_TOGETHER", 7)
    sizes = {f"{n % 3}/{n:02}": 1 + n for n in range(40)} | {"big": SMALL, "x": SMALL + 1}
    packed = make_packed({f"d{name}": size for name, size in sizes.items()})
    (tmp_path / "source" / "d1" / "04").write_bytes(b"other")
    calls: list[int] = []
    write = PartialStore.put

    def counted(store: PartialStore, parts: list[tuple[int, bytes]]) -> None:
        calls.append(len(parts))
        write(store, parts)

    monkeypatch.setattr(PartialStore, "put", counted)
    store = open_store(tmp_path / "incoming", packed)
    told: list[int] = []
    copied = fill(store, [tmp_path / "source"], progress=told.append, likely=likely)
    assert copied == sum(told) == sum(sizes.values()) - 5
    assert sum(calls) == 40
    assert max(calls) == 7
    assert store.done.count(0) == 1
    abandon(store)
    store = open_store(tmp_path / "incoming", packed)
    assert store.done.count(0) == 1
    assert store.verify() != []
    store.discard()


def test_a_disk_that_runs_full_ends_it_and_keeps_what_is_there(
    make_packed: MakePacked, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_TOGETHER", 2)
    packed = make_packed({f"{n:02}": SMALL for n in range(20)})
    store = open_store(small_disk / "incoming", packed)
    monkeypatch.setattr(store._reservation._room, "take", lambda size: None)
    store._reservation._room.drop()
    (small_disk / "other").write_bytes(bytes(5 * BLOCK))
    with pytest.raises(OutOfSpace):
        fill(store, [tmp_path / "source"], likely=True)
    here = store.done.count(1)
    assert 2 <= here <= 12
    abandon(store)
    (small_disk / "other").unlink()
    store = open_store(small_disk / "incoming", packed)
    assert store.done.count(1) == here
    assert fill(store, [tmp_path / "source"], likely=True) == (20 - here) * SMALL
    assert store.verify() == []
    store.finish().release()


@pytest.mark.parametrize("kernel", [True, False])
def test_a_copy_that_the_kernel_cant_make(
    make_packed: MakePacked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(partial_files, "copy_range", lambda *_: False)
    packed = make_packed({"a": 3 * BLOCK + 1})
    store = open_store(tmp_path / "incoming", packed)
    assert fill(store, [tmp_path / "source"]) == 3 * BLOCK + 1
    assert store.verify() == []
    store.finish().release()


def test_copying_ends_when_it_is_told_to(make_packed: MakePacked, tmp_path: Path) -> None:
    packed = make_packed({"a": 8 * BLOCK})
    store = open_store(tmp_path / "incoming", packed)

    def enough(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(store, [tmp_path / "source"], progress=enough)
    assert store.here == BLOCK
    store.close()
