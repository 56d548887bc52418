"""Which worker does a job."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sleap_rtc.client.choosing import choose
from sleap_rtc.domain.places import Presence, WorkerInfo
from sleap_rtc.errors import EngineMissing, NotFound

ROOM = SimpleNamespace(room="a" * 32, name="lab")


class Online:
    """A room with some workers in it."""

    def __init__(self, *workers: Presence) -> None:
        self._workers = list(workers)

    def workers(self, _room: str) -> list[Presence]:
        return self._workers

    async def find_worker(self, _room: object, name: str) -> Presence:
        return next(each for each in self._workers if each.name == name)


def worker(name: str, *engines: str, jobs: int = 0, told: bool = True) -> Presence:
    info = WorkerInfo(engines=dict.fromkeys(engines, "1"), jobs=jobs) if told else None
    return Presence(
        device="d" * 64, connection=name, room="a" * 32, name=name, kind="worker", worker=info
    )


async def test_the_least_busy_one_that_can() -> None:
    online = Online(
        worker("a", "tiny"),
        worker("b", "sleap-nn", jobs=2),
        worker("c", "sleap-nn", jobs=1),
        worker("d", told=False),
    )
    assert (await choose(online, ROOM, None, "sleap-nn")).name == "c"
    assert (await choose(online, ROOM, "b", "sleap-nn")).name == "b"
    assert (await choose(online, ROOM, "d", "sleap-nn")).name == "d"  # it says nothing of itself


async def test_nobody_is_there() -> None:
    with pytest.raises(NotFound, match="No worker is online") as caught:
        await choose(Online(), ROOM, None, "tiny")
    assert "sleap-rtc worker --room lab" in caught.value.hint_text


async def test_nobody_can_and_what_there_is_instead_is_said() -> None:
    online = Online(worker("a", "tiny"), worker("b"))
    for name in (None, "a"):
        with pytest.raises(EngineMissing) as caught:
            await choose(online, ROOM, name, "sleap-nn")
        assert "sleap-rtc engine install sleap-nn" in caught.value.hint_text
        assert "--engine tiny" in caught.value.hint_text
    with pytest.raises(EngineMissing) as caught:
        await choose(online, ROOM, "b", "sleap-nn")
    assert "--engine" not in caught.value.hint_text
