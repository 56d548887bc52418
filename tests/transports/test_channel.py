"""A channel whose connection fails while it is used; with real ones it is tested as a link."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest

from sleap_rtc.errors import LinkLost
from sleap_rtc.protocol.link import Describe
from sleap_rtc.transports.channel import Channel


class Broken:
    """A connection that can't send any more, and hasn't noticed its end."""

    def __init__(self) -> None:
        self.closed = False

    def send_text(self, data: bytes) -> None:
        raise LinkLost(peer="peer", why="it broke")

    async def receive(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


async def test_what_could_not_be_asked_is_told_once_and_forgotten() -> None:
    untold: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: untold.append(found))
    peer = SimpleNamespace(name="peer")
    proven = SimpleNamespace(purpose="control", peer=peer, session="s", features=())
    channel = Channel(Broken(), proven)
    with pytest.raises(LinkLost, match=r"^The connection to peer was lost: it broke\.$"):
        await channel.request(Describe(), id="r", within_s=60)
    running = asyncio.create_task(channel.run())
    await asyncio.sleep(0)
    channel.abandon("the test is over")
    await running
    del channel, running
    gc.collect()
    assert untold == []


async def test_why_it_was_lost_is_said_once() -> None:
    peer = SimpleNamespace(name="peer")
    proven = SimpleNamespace(purpose="control", peer=peer, session="s", features=())
    channel = Channel(Broken(), proven)
    channel.abandon("it broke")
    with pytest.raises(LinkLost, match=r"^The connection to peer was lost: it broke\.$"):
        await channel.request(Describe(), id="r", within_s=60)
