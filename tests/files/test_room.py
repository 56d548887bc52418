from __future__ import annotations

import os
from pathlib import Path

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import OutOfSpace
from sleap_rtc.files import room
from sleap_rtc.files.room import Room, room_of
from sleap_rtc.files.space import free_space


def test_room_is_given_in_whole_units() -> None:
    assert [room_of(size) for size in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]


def test_it_is_held_and_given_back_ahead_of_what_is_written(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "STEP", BLOCK)
    free = free_space(small_disk)
    held = Room(small_disk / "room")
    held.take(6 * BLOCK)
    assert free_space(small_disk) <= free - 6 * BLOCK
    for written in range(4096, 6 * BLOCK, 4096):
        held.use(4096)
        # What is written next always fits, and not much more is free than that.
        taken = free - free_space(small_disk)
        assert taken + written <= 6 * BLOCK
        assert taken + written >= 4 * BLOCK or taken <= 4096
    held.use(10 * BLOCK)
    assert (small_disk / "room").stat().st_size == 0
    held.close()
    held.close()


def test_none_is_held_where_there_is_too_little(small_disk: Path) -> None:
    free = free_space(small_disk)
    held = Room(small_disk / "room")
    with pytest.raises(OutOfSpace):
        held.take(9 * BLOCK)
    assert free_space(small_disk) >= free - 4096
    held.use(BLOCK)
    held.take(0)
    held.close()


def test_an_earlier_attempts_is_used_again(small_disk: Path) -> None:
    first = Room(small_disk / "room")
    first.take(5 * BLOCK)
    first.close()
    free = free_space(small_disk)
    second = Room(small_disk / "room")
    second.drop()
    assert free_space(small_disk) >= free + 5 * BLOCK
    second.take(7 * BLOCK)
    second.close()


def test_a_file_system_that_cant_reserve_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "reserve_range", lambda *_: False)
    held = Room(tmp_path / "room")
    held.take(BLOCK)
    held.use(4096)
    assert (tmp_path / "room").stat().st_size == 0
    held.close()


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "room").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=os.strerror(40)):
        Room(tmp_path / "room")
    assert (tmp_path / "outside").read_text() == "kept"
