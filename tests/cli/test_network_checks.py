"""What doctor says of the system's room for sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.cli.network_checks import SETTINGS, sockets
from sleap_rtc.transports.datagrams import ROOM


def system(place: Path, *sizes: int) -> Path:
    for name, size in zip(SETTINGS, sizes, strict=False):
        path = place.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{size}\n")
    return place


def test_room_enough(tmp_path: Path) -> None:
    found = sockets(system(tmp_path, ROOM, 2 * ROOM))
    assert found is not None
    assert (found.status, found.hint) == ("ok", "")


@pytest.mark.parametrize(
    ("sizes", "command"),
    [
        ((212_992, 212_992), f"sysctl -w net.core.rmem_max={ROOM} net.core.wmem_max={ROOM} "),
        ((ROOM, 212_992), f"sysctl -w net.core.wmem_max={ROOM} "),
    ],
)
def test_little_room_and_what_to_do(tmp_path: Path, sizes: tuple[int, int], command: str) -> None:
    found = sockets(system(tmp_path, *sizes))
    assert found is not None
    assert found.status == "note"
    assert "net.core.wmem_max is 213 KB" in found.message
    assert command in found.hint


@pytest.mark.parametrize("told", ["", "much"])
def test_systems_that_dont_tell(tmp_path: Path, told: str) -> None:
    place = system(tmp_path, ROOM)
    if told:
        place.joinpath(*SETTINGS[1].split(".")).write_text(told)
    assert sockets(place) is None


def test_this_system() -> None:
    found = sockets()
    assert found is None or found.status in ("ok", "note")
