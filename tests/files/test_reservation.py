from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files import reservation, room, space
from sleap_rtc.files.packing import pack

from .conftest import MakePacked
from .stores import fill, open_store


def test_room_for_small_files_is_held_until_they_come(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "STEP", 4096)
    packed = make_packed({f"{n}": 100_000 for n in range(50)})
    store = open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) < 3.2 * BLOCK
    fill(store, packed, range(20))
    assert space.free_space(small_disk) < 3.2 * BLOCK
    store.close()
    store = open_store(small_disk / "incoming", packed)
    fill(store, packed, range(20, 50))
    assert space.free_space(small_disk) > 2.5 * BLOCK
    assert store.verify() == []
    store.finish().release()
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", make_packed({f"{n}": 100_000 for n in range(60)}))


def test_no_room_is_said_before_the_first_byte(make_packed: MakePacked, small_disk: Path) -> None:
    packed = make_packed({"a": 9 * BLOCK})
    with pytest.raises(OutOfSpace, match=r"8\.4 MB free, and 9\.4 MB are needed"):
        open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) > 8_000_000


def test_room_is_reserved(make_packed: MakePacked, small_disk: Path) -> None:
    packed = make_packed({"a": 5 * BLOCK})
    store = open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) < 3.2 * BLOCK
    fill(store, packed, [0, 1])
    store.close()
    # Taken up, it needs what is missing, which is reserved already.
    store = open_store(small_disk / "incoming", packed)
    fill(store, packed, [2, 3, 4])
    assert store.verify() == []
    store.finish().release()


def test_room_that_another_takes_meanwhile_is_given_back(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_packed({"a": 5 * BLOCK, "b": 5 * BLOCK})
    monkeypatch.setattr(reservation, "check_space", lambda path, need: None)
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) > 7 * BLOCK


def test_a_disk_that_runs_full_keeps_what_is_there(
    make_packed: MakePacked, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system that can't reserve: the room is lost to somebody else's file.
    def sparse(fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    monkeypatch.setattr(reservation, "reserve", sparse)
    packed = make_packed({"a": 6 * BLOCK})
    store = open_store(small_disk / "incoming", packed)
    (small_disk / "other").write_bytes(bytes(4 * BLOCK))
    with pytest.raises(OutOfSpace):
        fill(store, packed)
    here = store.done.count(1)
    assert 2 <= here <= 4
    store.close()
    with pytest.raises(OutOfSpace):
        open_store(small_disk / "incoming", packed)
    (small_disk / "other").unlink()
    store = open_store(small_disk / "incoming", packed)
    assert store.done.count(1) == here
    fill(store, packed, [n for n, done in enumerate(store.done) if not done])
    assert store.verify() == []
    store.finish().release()


def test_empty_blocks_are_here_and_take_no_room(small_disk: Path) -> None:
    source = small_disk.parent / "image"
    source.write_bytes(bytes(20 * BLOCK) + b"x" * BLOCK + b"end")
    packed = pack({"image": source}, root=small_disk.parent)
    store = open_store(small_disk / "incoming", packed)
    assert space.free_space(small_disk) > 6 * BLOCK
    assert store.done == b"\x01" * 20 + b"\x00" * 2
    fill(store, packed, [20, 21])
    assert store.verify() == []
    staged = store.finish()
    assert (staged.path / "image").read_bytes() == source.read_bytes()
    staged.discard()
