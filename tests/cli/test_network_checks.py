"""What doctor says of the system's room for sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleap_rtc.cli.network_checks import SETTING, sockets
from sleap_rtc.transports.datagrams import ROOM


def system(place: Path, says: str) -> Path:
    path = place.joinpath(*SETTING.split("."))
    path.parent.mkdir(parents=True)
    path.write_text(says)
    return place


def test_room_enough(tmp_path: Path) -> None:
    found = sockets(system(tmp_path, f"{ROOM}\n"))
    assert found is not None
    assert (found.status, found.hint) == ("ok", "")


def test_little_room_and_what_to_do(tmp_path: Path) -> None:
    found = sockets(system(tmp_path, "212992\n"))
    assert found is not None
    assert found.status == "note"
    assert "net.core.rmem_max is 213 KB" in found.message
    assert f"sysctl -w net.core.rmem_max={ROOM} " in found.hint


@pytest.mark.parametrize("says", [None, "much"])
def test_systems_that_dont_tell(tmp_path: Path, says: str | None) -> None:
    assert sockets(tmp_path if says is None else system(tmp_path, says)) is None


def test_this_system() -> None:
    found = sockets()
    assert found is None or found.status in ("ok", "note")
