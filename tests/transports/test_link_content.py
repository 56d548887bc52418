"""Content over links: both ways, over several connections, on bad networks."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import (
    NotFound,
    SourceChanged,
)
from sleap_rtc.protocol import frames
from sleap_rtc.protocol.link import (
    SILENT_AFTER_S,
    Describe,
    Description,
)
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather
from sleap_rtc.transports import channel as channels
from sleap_rtc.transports import link as module
from sleap_rtc.transports.throttle import Throttle

from .linking import ANY_PAIR, PORTABLE, MadeFile, fetch

pytestmark = [pytest.mark.webrtc]


@ANY_PAIR
async def test_blocks_arrive_whole_and_in_any_number(pair, shells):
    made = MadeFile((5 if shells == ("fast", "fast") else 1) * BLOCK + 17)
    await pair.serve(made)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        await fetch(source, made)


class Two:
    """Wants a second connection as soon as content moves; see test_widening.py for the real one."""

    def __init__(self):
        self.rates, self.losses = [], 0
        self.wanted = 1

    def window(self, rate, **_of_the_line):
        self.rates.append(rate)
        self.wanted = 2 if rate and not self.losses else self.wanted
        return self.wanted

    def lost(self):
        self.losses += 1
        self.wanted = 1


async def test_more_connections_for_content_come_and_go_as_they_are_wanted(pair, monkeypatch):
    two = Two()
    monkeypatch.setattr(module, "WINDOW_S", 0.02)
    monkeypatch.setattr(module, "Widening", lambda: two)
    made = MadeFile(BLOCK)
    await pair.serve(made)
    async with pair.link() as link, asyncio.timeout(60):
        link.want_blocks()
        first = await pair.sources.get()
        second = asyncio.create_task(pair.sources.get())
        while not second.done():
            await fetch(first, made)
        await fetch(second.result(), made)
        beside = next(channel for channel in link._beside.values() if channel is not None)
        attempt = beside._connection.attempt
        its = next(c for c in pair.worker.channels if c._connection.attempt == attempt)
        await its.close("as a test wants it")
        await pair.worker.ended[its].wait()
        while not two.losses:
            await fetch(first, made)

        two.losses = 0  # it may be tried again, and then isn't wanted any more
        third = asyncio.create_task(pair.sources.get())
        while not third.done():
            await fetch(first, made)
        two.window = lambda _rate, **_of_the_line: 1
        its = pair.worker.channels[-1]
        await pair.worker.ended[its].wait()
        assert "fewer connections are enough" in str(its.ended_by)
        assert isinstance(await link.request(Describe()), Description)
        assert (await link.packets()).sent > (await link._at["blocks"][0].packets()).sent
    assert link._beside == {}
    assert {channel.open for channel in pair.worker.channels} == {False}
    assert max(two.rates) > 0


async def test_what_is_sent_is_limited_over_all_links_together(pair):
    """Only that it isn't faster: how much slower it is depends on the machine."""
    made = MadeFile(BLOCK)
    throttle = Throttle(BLOCK)
    async with pair.link(throttle=throttle) as one, pair.link(throttle=throttle) as two:
        begun = time.monotonic()
        one.offer(made.ref.id, made)
        two.offer(made.ref.id, made)
        fetched = 0
        while fetched < 2:
            channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
            if channel.proven.purpose == "blocks":
                await fetch(channel.blocks, made)
                fetched += 1
    assert time.monotonic() - begun > 1.7


@ANY_PAIR
async def test_what_is_offered_goes_the_other_way(pair, shells):
    made = MadeFile(BLOCK + 1)
    async with pair.link() as link:
        link.offer(made.ref.id, made)
        channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        while channel.proven.purpose != "blocks":
            channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        await fetch(channel.blocks, made)
        sent = await link.packets()
    ended = await link.packets()
    if shells[0] == "portable":
        assert sent is ended is None  # only the fast library tells
    else:
        assert ended.sent >= sent.sent > BLOCK / 1_500
        assert ended.again <= ended.sent


async def test_nothing_is_served_that_was_not_offered(pair):
    made = MadeFile(BLOCK)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        with pytest.raises(NotFound, match="not offered to you"):
            await source.listing(made.ref)
        with pytest.raises(NotFound, match="not offered to you"):
            await source.block(made.ref.id, 0, 0, BLOCK)


async def test_a_file_that_changed_is_said_and_the_link_goes_on(pair):
    made = MadeFile(2 * BLOCK)
    made.broken.add(1)
    await pair.serve(made)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        with pytest.raises(SourceChanged, match=r"data\.bin changed"):
            await source.block(made.ref.id, 0, 1, BLOCK)
        assert await source.block(made.ref.id, 0, 0, BLOCK) == made.content[:BLOCK]


@pytest.mark.parametrize(
    "weather",
    [
        Weather(loss=0.02),
        Weather(delay_s=0.02, jitter_s=0.01),
        Weather(duplicate=0.2),
        Weather(loss=0.01, delay_s=0.01, jitter_s=0.02, duplicate=0.05),
    ],
    ids=["loss", "delay and reordering", "duplicates", "all of it"],
)
@pytest.mark.slow
async def test_a_bad_network_changes_nothing_but_the_speed(pair, address, weather):
    pair.rig.network = ImpairedNetwork(address, weather)
    made = MadeFile(2 * BLOCK + 5)
    await pair.serve(made)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        await fetch(source, made)
        assert isinstance(await link.request(Describe()), Description)
    assert pair.rig.network.passed > 100


@pytest.mark.slow
async def test_a_cut_is_noticed_within_six_seconds_and_survived(pair, address):
    assert SILENT_AFTER_S + channels.TICK_S < 6
    weather = Weather()
    pair.rig.network = ImpairedNetwork(address, weather)
    made = MadeFile(24 * BLOCK)
    await pair.serve(made)
    silent = asyncio.Event()
    back = asyncio.Event()

    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        link._on_state = lambda state: (silent if state == "silent" else back).set()
        fetching = asyncio.create_task(fetch(source, made))
        await pair.rig.network.until_passed(3000)
        weather.cut = True
        await asyncio.wait_for(silent.wait(), 60)
        back.clear()
        weather.cut = False
        await asyncio.wait_for(back.wait(), 60)
        await asyncio.wait_for(fetching, 60)
        assert isinstance(await link.request(Describe()), Description)


@PORTABLE
@pytest.mark.slow
async def test_a_bad_network_is_survived_by_the_portable_library_too(pair, address):
    weather = Weather(loss=0.01, delay_s=0.01, jitter_s=0.02, duplicate=0.05)
    pair.rig.network = ImpairedNetwork(address, weather)
    made = MadeFile(BLOCK // 4)
    await pair.serve(made)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        await fetch(source, made)
    assert pair.rig.network.passed > 100


async def both_ways(pair, blocks):
    up, down = MadeFile(blocks * BLOCK), MadeFile(blocks * BLOCK + 1)
    await pair.serve(down)
    async with pair.link() as link:
        link.offer(up.ref.id, up)
        source = await asyncio.wait_for(pair.sources.get(), 60)
        channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        while channel.proven.purpose != "blocks":
            channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        await asyncio.gather(fetch(channel.blocks, up), fetch(source, down))


@pytest.mark.parametrize("shells", [("portable", "portable")], indirect=True)
async def test_both_ways_at_once_through_a_narrow_line(pair):
    """What is queued is full most of the time: requests wait for room, and keep their order."""
    await both_ways(pair, 3)


@pytest.mark.slow
async def test_both_ways_at_once(pair):
    await both_ways(pair, 12)


async def test_blocks_on_a_control_connection_end_it(pair):
    async with pair.link() as link:
        await link.request(Describe())
        channel = pair.worker.channels[0]
        await link._control._connection.send_binary(frames.encode(frames.Withdraw(1)))
        await asyncio.wait_for(pair.worker.ended[channel].wait(), 60)
        assert "content on a control connection" in str(channel.ended_by)


async def test_more_requests_than_the_credit_end_the_connection(pair):
    made = MadeFile(BLOCK)
    gate = threading.Event()
    read = made.read
    made.read = lambda f, b: (gate.wait(60), read(f, b))[1]
    await pair.serve(made)
    async with pair.link() as link:
        link.want_blocks()
        source = await asyncio.wait_for(pair.sources.get(), 60)
        channel = next(c for c in pair.worker.channels if c.proven.purpose == "blocks")
        for number in range(1, 200):
            frame = frames.GetBlock(number, made.ref.id, 0, 0)
            await source._connection.send_binary(frames.encode(frame))
        await asyncio.wait_for(pair.worker.ended[channel].wait(), 60)
        gate.set()
        assert "more requests than the credit" in str(channel.ended_by)
