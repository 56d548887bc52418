"""A connection that isn't wanted any more ends the answer that it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import LinkLost
from sleap_rtc.transports import link as module
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.link import Link

PACKAGE = "cd" * 32
CONTENT = bytes(range(256)) * (BLOCK // 256)


class Wanted:
    """Wants so many connections as a test says; see test_widening.py for the real one."""

    def __init__(self) -> None:
        self.wanted = 1
        self.looked = asyncio.Event()

    def window(self, _rate: float, **_of_the_line: object) -> int:
        self.looked.set()
        return self.wanted

    def lost(self) -> None:
        """One that was wanted has ended."""

    async def look(self) -> None:
        """Returns when what is wanted now has been looked at and acted on."""
        for _ in range(2):
            self.looked.clear()
            await self.looked.wait()


class Halfway:
    """A limit that lets nothing pass behind the first piece of an answer until it is opened."""

    def __init__(self) -> None:
        self.pieces = 0
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def take(self, _size: int) -> None:
        self.pieces += 1
        if self.pieces > 1:
            self.reached.set()
            await self.open.wait()


class Served:
    """Any block of it has the same content."""

    listing = b""

    def read(self, _file: int, _block: int) -> bytes:
        return CONTENT


Retire = Callable[..., Awaitable[list[Any]]]


async def _blocks(arrivals: asyncio.Queue[Channel]) -> Channel:
    """The next connection for content that has come in."""
    while (channel := await arrivals.get()).proven.purpose != "blocks":
        pass
    return channel


@pytest.fixture
def retire(rig: Any, monkeypatch: pytest.MonkeyPatch) -> Retire:
    """Asks for three blocks over a second connection that isn't wanted any more halfway."""

    async def run(*, opens: bool) -> list[Any]:
        control, halfway = Wanted(), Halfway()
        monkeypatch.setattr(module, "WINDOW_S", 0.02)
        monkeypatch.setattr(module, "Widening", lambda: control)
        client, worker = rig.add("client"), rig.add("worker", accepts=True)
        link = Link(
            client.switchboard,
            room=rig.room,
            locate=lambda: worker.presence,
            name="worker",
            throttle=halfway,  # type: ignore[arg-type]
        )
        async with link, asyncio.timeout(60):
            link.offer(PACKAGE, Served())
            await _blocks(worker.arrivals)
            control.wanted = 2
            second = await _blocks(worker.arrivals)
            asked = [
                asyncio.create_task(second.blocks.block(PACKAGE, 0, number, BLOCK))
                for number in range(3)
            ]
            await halfway.reached.wait()
            control.wanted = 1
            await control.look()
            if opens:
                assert not any(task.done() for task in asked)
                halfway.open.set()
            await worker.ended[second].wait()
            assert "fewer connections are enough" in str(second.ended_by)
            return await asyncio.gather(*asked, return_exceptions=True)

    return run


@pytest.mark.webrtc
@pytest.mark.slow
async def test_what_is_begun_arrives_whole_and_the_rest_isnt_sent(retire: Retire) -> None:
    first, *rest = await retire(opens=True)
    assert bytes(first) == CONTENT
    assert [type(each) for each in rest] == [LinkLost, LinkLost]


@pytest.mark.webrtc
@pytest.mark.slow
async def test_it_is_not_waited_for_without_end(
    retire: Retire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.05)
    found = await retire(opens=False)
    assert [type(each) for each in found] == [LinkLost] * 3
