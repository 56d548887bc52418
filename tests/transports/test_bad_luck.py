"""Transfers over a line that loses packets and breaks off at random."""

from __future__ import annotations

import asyncio
import random

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry, listing_of, package, ref
from sleap_rtc.errors import LinkLost
from sleap_rtc.protocol import frames
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link

pytestmark = [pytest.mark.webrtc, pytest.mark.slow]

TRANSFERS = 5
BLOCKS = 3


class Served:
    """A package whose blocks are counted as they are asked for."""

    def __init__(self, seed: int) -> None:
        self.content = random.Random(seed).randbytes(BLOCKS * BLOCK + 7)
        parts = range(0, len(self.content), BLOCK)
        hashes = b"".join(blake3(self.content[at : at + BLOCK]).digest() for at in parts)
        entry = FileEntry(path="data.bin", size=len(self.content), hashes=hashes)
        self.package = package([entry])
        self.reads = 0

    @property
    def listing(self) -> bytes:
        return listing_of(self.package.files)

    def read(self, file: int, block: int) -> bytes:
        self.reads += 1
        return self.content[block * BLOCK : (block + 1) * BLOCK]


async def trouble(weather: Weather, worker, chance: random.Random) -> None:
    """Cut the line for a while, or end a connection, again and again."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        if chance.random() < 0.5:
            weather.cut = True
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            weather.cut = False
        elif opened := [channel for channel in worker.channels if channel.open]:
            chance.choice(opened).abandon("as a test wants it")


async def test_all_end_well_under_loss_and_disconnects(rig, address, tmp_path):
    weather = Weather(loss=0.01, delay_s=0.002)
    rig.network = ImpairedNetwork(address, weather)
    client, worker = rig.add("client"), rig.add("worker", accepts=True)
    troubling = asyncio.create_task(trouble(weather, worker, random.Random(1)))
    reads = 0
    for number in range(TRANSFERS):
        served = Served(number)
        worker.shelf = {served.package.id: served}.get
        sources = Sources()

        def change(source, up, sources=sources):
            (sources.add if up else sources.remove)(source)

        async with Link(
            client.switchboard,
            room=rig.room,
            locate=lambda: worker.presence,
            name="worker",
            on_blocks=change,
        ) as link:
            link.want_blocks()
            staged = await fetch(
                ref(served.package),
                sources=sources,
                destination=f"there-{number}",
                incoming=tmp_path / "incoming",
                patience=60.0,
            )
        assert (staged.path / "data.bin").read_bytes() == served.content
        staged.discard()
        reads += served.reads
    troubling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await troubling
    ended = [channel for channel in worker.channels if not channel.open]
    assert len(ended) >= TRANSFERS
    async with asyncio.timeout(60):
        for channel in ended:  # the last one may have been closed at this moment
            await worker.ended[channel].wait()
    assert all(isinstance(channel.ended_by, LinkLost) for channel in ended)
    # What was under way when a connection ended is asked again, and nothing else.
    assert reads <= TRANSFERS * (BLOCKS + 1) + len(ended) * frames.MAX_OUTSTANDING
