"""What a link has sent, while several of its connections end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from sleap_rtc.transports.connection import Packets
from sleap_rtc.transports.link import Link


class Ending:
    """A connection that ends, and takes a moment to say what it has sent."""

    def __init__(self, sent: int, again: int) -> None:
        self.told = Packets(sent=sent, again=again)
        self.asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def packets(self) -> Packets:
        self.asked.set()
        await self.may_answer.wait()
        return self.told


async def test_all_that_end_at_one_moment_count() -> None:
    link = Link(SimpleNamespace(), room=SimpleNamespace(), locate=lambda: None, name="gpu-1")
    ends = [Ending(100, 1), Ending(20, 2)]
    counting = [asyncio.create_task(link._count(each)) for each in ends]
    async with asyncio.timeout(30):
        for each in ends:
            await each.asked.wait()
        for each in ends:
            each.may_answer.set()
        await asyncio.gather(*counting)
        assert await link.packets() == Packets(sent=120, again=3)
