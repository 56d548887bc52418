"""Packages that several peers fetch from, while others come and go."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from sleap_rtc.errors import NotFound, SourceChanged
from sleap_rtc.files.packing import pack
from sleap_rtc.transports.serving import ServedPackage
from sleap_rtc.worker.open_packages import OpenPackages


def served(folder: Path, name: str = "a") -> ServedPackage:
    path = folder / name
    if not path.exists():  # another time of change would be another file
        path.write_text(name)
    return ServedPackage(pack({name: path}, root=folder))


async def test_who_asks_at_the_same_time_shares_one(tmp_path: Path) -> None:
    made: list[ServedPackage] = []
    go = threading.Event()

    def make() -> ServedPackage:
        go.wait(60)
        made.append(served(tmp_path))
        return made[-1]

    wanted = served(tmp_path).packed.package.id
    granted: set[str] = set()
    packages = OpenPackages(granted.__contains__)
    first, second, gives_up = (asyncio.create_task(packages.get(wanted, make)) for _ in range(3))
    await asyncio.sleep(0)
    gives_up.cancel()
    go.set()
    assert await first is await second is made[0]
    granted.add(wanted)
    assert await packages.get(wanted, make) is made[0]
    assert len(made) == 1


async def test_it_is_open_while_a_peer_may_fetch_and_made_anew_afterwards(tmp_path: Path) -> None:
    granted: set[str] = set()
    packages = OpenPackages(granted.__contains__)
    one = served(tmp_path)
    wanted = one.packed.package.id
    granted.add(wanted)
    assert packages.keep(one) is one
    other = served(tmp_path)
    assert packages.keep(other) is one
    packages.tidy()
    assert one.read(0, 0) == b"a"
    with pytest.raises(NotFound, match="not given away"):
        other.read(0, 0)

    granted.clear()
    packages.tidy()
    again = await packages.get(wanted, lambda: served(tmp_path))
    assert again is not one
    assert again.read(0, 0) == b"a"
    with pytest.raises(NotFound):
        again.read(0, 1)


async def test_what_became_something_else_is_said_and_forgotten(tmp_path: Path) -> None:
    packages = OpenPackages(lambda _: False)
    wanted = served(tmp_path).packed.package.id
    with pytest.raises(SourceChanged):
        await packages.get(wanted, lambda: served(tmp_path, "b"))
    assert (await packages.get(wanted, lambda: served(tmp_path))).read(0, 0) == b"a"
