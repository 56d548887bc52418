"""Small files over a real link: to peers that know of questions for several blocks, and others."""

from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.domain.packages import ref
from sleap_rtc.files.packing import pack
from sleap_rtc.protocol import frames
from sleap_rtc.protocol.link import FEATURES
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.direct.shortcut import Ways
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.serving import ServedPackage


@pytest.mark.webrtc
@pytest.mark.parametrize("old", [None, "client", "worker"])
@pytest.mark.parametrize("way", ["webrtc", "direct"])
async def test_small_files_come_whole(rig, tmp_path, old, way):
    client, worker = rig.add("client"), rig.add("worker", accepts=True)
    for name, device in (("client", client), ("worker", worker)):
        device.switchboard.ways = Ways(way)
        if name == old:
            device.trust.features = tuple(f for f in FEATURES if f != frames.FEATURE)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"{number:03}").write_bytes(b"%d" % number * number)
    packed = pack({path.name: path for path in source.iterdir()})
    served = ServedPackage(packed)
    worker.shelf = {packed.package.id: served}.get
    found: asyncio.Queue = asyncio.Queue()
    link = Link(
        client.switchboard,
        room=rig.room,
        locate=lambda: worker.presence,
        name="worker",
        on_blocks=lambda blocks, up: found.put_nowait(blocks) if up else None,
    )
    async with asyncio.timeout(60), link:
        link.want_blocks()
        blocks = await found.get()
        assert blocks.at_once == (frames.MAX_SEVERAL if old is None else 1)
        staged = await fetch(
            ref(packed.package),
            sources=Sources(blocks),
            destination="there",
            incoming=tmp_path / "incoming",
        )
        asked = next(blocks._numbers)
    with staged:
        for path in source.iterdir():
            assert (staged.path / path.name).read_bytes() == path.read_bytes()
    served.close()
    if way == "webrtc":  # the listing, and all blocks in two questions or each by itself
        assert asked - 2 == (2 if old is None else 299)
    else:
        assert asked <= 3
