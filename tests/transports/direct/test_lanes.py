"""Both ends of a direct connection at work, and peers that break its rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time

import pytest

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import LinkLost, NotFound, ProtocolError, SourceChanged, UsageError
from sleap_rtc.protocol import direct, frames
from sleap_rtc.transports.direct import fetching, serving, wire
from sleap_rtc.transports.direct import lane as lanes
from sleap_rtc.transports.direct.fetching import FetchLane
from sleap_rtc.transports.direct.serving import ServeLane
from sleap_rtc.transports.direct.wire import Wire
from sleap_rtc.transports.throttle import Throttle

from .conftest import MadeFile

PACKAGE = "ab" * 32


class Ends:
    """The lanes of a test, and why they ended."""

    def __init__(self) -> None:
        self.lanes = []
        loop = asyncio.get_running_loop()
        self.errors = {"fetch": loop.create_future(), "serve": loop.create_future()}

    def add(self, lane):
        self.lanes.append(lane)
        lane.start()
        return lane

    def fetch(self, at):
        return self.add(FetchLane(at, name="eve", on_end=self.errors["fetch"].set_result))

    def serve(self, at, shelf, **options):
        options = {"throttle": None, **options}
        return self.add(
            ServeLane(at, shelf=shelf, on_end=self.errors["serve"].set_result, **options)
        )


@pytest.fixture
async def ends():
    made = Ends()
    yield made
    async with asyncio.timeout(60):
        for lane in made.lanes:
            await lane.close()


async def over(ends, which):
    async with asyncio.timeout(60):
        return await ends.errors[which]


class Peer:
    """The other end, as a test wants it."""

    def __init__(self, at):
        self.at = at

    async def send(self, *parts: bytes):
        for part in parts:
            await self.at.send_all(direct.LENGTH.pack(len(part)) + part)

    async def next(self):
        async with asyncio.timeout(60):
            (length,) = direct.LENGTH.unpack(await self.at.read_exactly(4))
            return frames.decode(await self.at.read_exactly(length), peer="test")


class SmallFiles:
    """A package of files of one block."""

    listing = b""

    def __init__(self, contents):
        self.contents = contents

    def read(self, file, block):
        assert block == 0
        return self.contents[file]


def data(number, offset, content):
    return frames.data_frame(number, memoryview(content), offset)


async def test_what_is_served_is_fetched(wires, ends, made):
    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {made.ref.id: made}.get)
    assert await lane.listing(made.ref) == made.listing
    await made.fetch_from(lane)


@pytest.mark.parametrize("records", [1, 2, 5])
async def test_blocks_of_every_length_around_a_record(wires, ends, records):
    """Heads and ends share records with content, wherever those begin and end."""
    lane = ends.fetch(wires[0])
    made = {}
    ends.serve(wires[1], made.get)
    for more in range(-40, 5):
        file = MadeFile(1, last=records * serving._RECORD + more)
        made[file.ref.id] = file
        await file.fetch_from(lane)


def small_buffers(sock):
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 16_384)


async def test_packets_are_filled_while_there_is_content_and_no_longer(ends, made):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        small_buffers(listener)
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    small_buffers(one)
    for sock in (one, other):
        sock.setblocking(False)
    ends.serve(Wire(other, peer="peer"), {made.ref.id: made}.get)

    async def at_once(expected):
        option = socket.IPPROTO_TCP, socket.TCP_NODELAY
        async with asyncio.timeout(60):
            while bool(other.getsockopt(*option)) is not expected:  # noqa: ASYNC110 - the system's
                await asyncio.sleep(0.01)

    await at_once(True)
    peer = Peer(Wire(one, peer="peer"))
    await peer.send(frames.encode(frames.GetBlock(1, made.ref.id, 0, 0)))
    await at_once(False)
    async with asyncio.timeout(60):
        (length,) = direct.LENGTH.unpack(await peer.at.read_exactly(4))
        await peer.at.read_exactly(length)
    assert isinstance(await peer.next(), frames.End)
    await at_once(True)
    one.close()


async def test_small_blocks_come_several_at_once(wires, ends):
    lane = ends.fetch(wires[0])
    made = [MadeFile(1, last=size) for size in (1, 20_000, 3)]
    small = SmallFiles([file.content[0] for file in made])
    ends.serve(wires[1], {PACKAGE: small}.get)
    places = [(2, 0), (0, 0), (1, 0)]
    assert await lane.several(PACKAGE, places, 20_004) == b"zzz" + b"z" + b"z" * 20_000
    # One that is longer than was said ends the connection, as any block does.
    with pytest.raises((ProtocolError, LinkLost)):
        await lane.several(PACKAGE, places, 20_003)


async def test_more_than_a_block_at_once_is_refused(wires, ends, made):
    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {made.ref.id: made}.get)
    with pytest.raises(UsageError, match="More than 1 MiB"):
        await lane.several(made.ref.id, [(0, 0), (0, 11)], BLOCK + 1000)
    made.broken.add(11)
    with pytest.raises(SourceChanged):
        await lane.several(made.ref.id, [(0, 11)], 1000)
    made.broken.clear()
    await made.fetch_from(lane)


async def test_refusals_arrive_as_errors_and_the_lane_goes_on(wires, ends, made):
    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {made.ref.id: made}.get)
    made.broken.add(1)
    with pytest.raises(SourceChanged):
        await lane.block(made.ref.id, 0, 1, BLOCK)
    with pytest.raises(NotFound, match="not offered to you"):
        await lane.block(PACKAGE, 0, 0, BLOCK)
    assert await lane.block(made.ref.id, 0, 2, BLOCK) == made.content[2]


async def test_what_is_withdrawn_isnt_sent_and_others_are(wires, ends, made):
    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {made.ref.id: made}.get)
    made.go_on.clear()
    asked = [asyncio.create_task(lane.block(made.ref.id, 0, n, BLOCK)) for n in range(6)]
    await asyncio.to_thread(made.read_at.wait, 60)
    for task in asked[:5]:
        task.cancel()
    await asyncio.gather(*asked[:5], return_exceptions=True)
    made.go_on.set()
    assert await asked[5] == made.content[5]
    for _ in range(3):  # its credit is given back
        await made.fetch_from(lane, at_once=frames.MAX_OUTSTANDING)


async def test_no_more_is_asked_for_than_the_credit(wires, ends, made):
    lane = ends.fetch(wires[0])
    peer = Peer(wires[1])
    tasks = [
        asyncio.create_task(lane.block(PACKAGE, 0, n, 1)) for n in range(frames.MAX_OUTSTANDING + 2)
    ]
    asked = [await peer.next() for _ in range(frames.MAX_OUTSTANDING)]
    assert [each.request for each in asked] == list(range(1, 1 + frames.MAX_OUTSTANDING))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await wires[1].read_exactly(1)
    await peer.send(data(1, 0, b"x"), frames.encode(frames.End(1, 1)))
    assert await tasks[0] == b"x"
    assert (await peer.next()).request == frames.MAX_OUTSTANDING + 1
    for lane_ in ends.lanes:
        await lane_.close()
    ended = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert all(isinstance(each, LinkLost) for each in ended)
    with pytest.raises(LinkLost):
        await lane.block(PACKAGE, 0, 0, 1)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (data(2, 0, b"abc"), "never asked for"),
        (data(1, 1, b"abc"), "out of order"),
        (data(1, 0, b"abcdefg"), "longer than was asked for"),
        (frames.encode(frames.End(1, 6)), "shorter than it says"),
        (frames.encode(frames.Refuse(9, "not_found", "no")), "never asked for"),
        (frames.encode(frames.GetBlock(1, PACKAGE, 0, 0)), "only answers"),
        (b"\x09" + bytes(20), "unknown kind"),
        (b"\x03\x00", "frame of 2 bytes"),
        (data(1, 0, b""), "frame of 9 bytes"),
        (b"\x05" + bytes(direct.MAX_OTHER), "a direct frame of"),
    ],
)
async def test_a_server_that_breaks_the_rules_is_left(wires, ends, sent, why):
    lane = ends.fetch(wires[0])
    task = asyncio.create_task(lane.block(PACKAGE, 0, 0, 6))
    peer = Peer(wires[1])
    await peer.next()
    with contextlib.suppress(LinkLost):
        await peer.send(sent, bytes(20))
    with pytest.raises(ProtocolError, match=why):
        await task
    assert isinstance(await over(ends, "fetch"), ProtocolError)


async def test_content_that_nobody_asked_for_ends_it_even_when_nothing_is(wires, ends):
    ends.fetch(wires[0])
    await Peer(wires[1]).send(data(1, 0, b"abc"))
    assert isinstance(await over(ends, "fetch"), ProtocolError)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ((frames.encode(frames.GetListing(1, PACKAGE)),) * 2, "twice"),
        ((data(1, 0, b"abc"),), "never asked for"),
        ((bytes(frames.MAX_REQUEST + 1),), "a request of"),
        ((b"\x01",), "block frame of 1 bytes"),
    ],
)
async def test_a_fetcher_that_breaks_the_rules_is_left(wires, ends, made, sent, why):
    ends.serve(wires[1], {made.ref.id: made}.get)
    await Peer(wires[0]).send(*sent)
    assert why in str(await over(ends, "serve"))


async def test_more_requests_than_the_credit_end_it(wires, ends):
    made = MadeFile(1)
    ends.serve(wires[1], {made.ref.id: made}.get)
    made.go_on.clear()
    peer = Peer(wires[0])
    with contextlib.suppress(LinkLost):
        for n in range(1, 3 * frames.MAX_OUTSTANDING):
            await peer.send(frames.encode(frames.GetBlock(n, made.ref.id, 0, 0)))
    made.go_on.set()  # it looks at what has arrived between two answers
    assert "more requests than the credit" in str(await over(ends, "serve"))


async def test_a_server_that_trickles_is_given_up(wires, ends, monkeypatch):
    """It may look alive; the link's own connection is there to go on with."""
    monkeypatch.setattr(fetching, "STALLED_S", 0.2)
    monkeypatch.setattr(wire, "MOMENT_S", 0.05)
    lane = ends.fetch(wires[0])
    task = asyncio.create_task(lane.block(PACKAGE, 0, 0, 1000))
    peer = Peer(wires[1])
    await peer.next()
    offset = 0
    async with asyncio.timeout(60):
        while not task.done():
            with contextlib.suppress(LinkLost):
                await peer.send(data(1, offset, b"x"))
            offset += 1
            await asyncio.sleep(0.02)
    with pytest.raises(LinkLost, match="next to nothing came"):
        await task


async def test_a_fetcher_that_never_reads_is_given_up(wires, ends, made, monkeypatch):
    monkeypatch.setattr(serving, "UNREAD_S", 0.2)
    monkeypatch.setattr(wire, "MOMENT_S", 0.05)
    ends.serve(wires[1], {made.ref.id: made}.get)
    await Peer(wires[0]).send(
        *(frames.encode(frames.GetBlock(n, made.ref.id, 0, 0)) for n in range(1, 5))
    )
    assert "took nothing" in str(await over(ends, "serve"))


async def test_whoever_waits_learns_that_the_other_side_is_gone(wires, ends):
    lane = ends.fetch(wires[0])
    task = asyncio.create_task(lane.block(PACKAGE, 0, 0, 1000))
    await Peer(wires[1]).next()
    wires[1].close()
    with pytest.raises(LinkLost, match="direct connection"):
        await task
    with pytest.raises(LinkLost):
        await lane.block(PACKAGE, 0, 0, 1000)


async def asked_for(lane, peer, count):
    """Blocks that the peer was asked for and hasn't answered."""
    tasks = [asyncio.create_task(lane.block(PACKAGE, 0, n, 1)) for n in range(count)]
    for _ in tasks:
        await peer.next()
    return tasks


def answer(number):
    return data(number, 0, b"%d" % number), frames.encode(frames.End(number, 1))


async def test_answers_that_follow_each_other_at_once_are_handed_over_together(
    wires, ends, monkeypatch
):
    monkeypatch.setattr(fetching, "HELD_S", 60.0)
    lane, peer = ends.fetch(wires[0]), Peer(wires[1])
    tasks = await asked_for(lane, peer, fetching.HELD + 2)
    together = []
    hand_over = lane._hand_over

    def watched():
        together.append(len(lane._held))
        hand_over()

    monkeypatch.setattr(lane, "_hand_over", watched)
    for number in range(1, len(tasks) + 1):
        await peer.send(*answer(number))
    async with asyncio.timeout(60):
        assert await asyncio.gather(*tasks) == [b"%d" % n for n in range(1, len(tasks) + 1)]
    assert together == [1, fetching.HELD, 1]


async def test_what_is_held_is_handed_over_when_nothing_follows(wires, ends, monkeypatch):
    monkeypatch.setattr(fetching, "HELD_S", 0.1)
    monkeypatch.setattr(wire, "MOMENT_S", 0.05)
    lane, peer = ends.fetch(wires[0]), Peer(wires[1])
    tasks = await asked_for(lane, peer, 3)
    await peer.send(*answer(1), *answer(2))
    async with asyncio.timeout(60):
        assert await asyncio.gather(*tasks[:2]) == [b"1", b"2"]
    assert not tasks[2].done()
    tasks[2].cancel()


async def test_what_is_held_isnt_lost_with_the_connection(wires, ends, monkeypatch):
    monkeypatch.setattr(fetching, "HELD_S", 60.0)
    lane, peer = ends.fetch(wires[0]), Peer(wires[1])
    tasks = await asked_for(lane, peer, 3)
    await peer.send(*answer(1), *answer(2))
    wires[1].close()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*tasks[:2]) == [b"1", b"2"]
        with pytest.raises(LinkLost):
            await tasks[2]


async def test_closing_doesnt_wait_for_a_disk_that_hangs(wires, ends, made, monkeypatch):
    monkeypatch.setattr(lanes, "CLOSES_S", 0.05)
    lane = ends.fetch(wires[0])
    server = ends.serve(wires[1], {made.ref.id: made}.get)
    made.go_on.clear()
    task = asyncio.create_task(lane.block(made.ref.id, 0, 0, BLOCK))
    await asyncio.to_thread(made.read_at.wait, 60)
    await server.close()
    assert not ends.errors["serve"].done()
    with pytest.raises(LinkLost):
        await task
    made.go_on.set()
    assert isinstance(await over(ends, "serve"), LinkLost)


async def test_an_idle_lane_notices_that_too(wires, ends, made):
    ends.fetch(wires[0])
    lane = ends.serve(wires[1], {made.ref.id: made}.get)
    await lane.close()
    assert isinstance(await over(ends, "fetch"), LinkLost)


async def test_a_fault_is_told_and_ends_only_the_lane(wires, ends, monkeypatch):
    def fail(_lane):
        raise RuntimeError("a fault")

    monkeypatch.setattr(FetchLane, "_work", fail)
    ends.fetch(wires[0])
    assert "a fault" in str(await over(ends, "fetch"))


async def test_without_a_thread_the_connection_is_closed(wires):
    def fail():
        raise RuntimeError("can't start new thread")

    lane = FetchLane(wires[0], name="eve", on_end=lambda _: None)
    lane._thread.start = fail
    with pytest.raises(LinkLost, match="got no thread"):
        lane.start()
    assert wires[0].sock.fileno() == -1


async def test_what_is_sent_is_limited(wires, ends, made):
    took = []

    class Limit(Throttle):
        async def take(self, size: int) -> None:
            took.append(size)

    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {made.ref.id: made}.get, throttle=Limit(1))
    await made.fetch_from(lane)
    assert sum(took) == made.ref.size
    assert max(took) == frames.MAX_CHUNK


async def test_closing_doesnt_wait_for_the_limit(wires, ends, made):
    lane = ends.fetch(wires[0])
    server = ends.serve(wires[1], {made.ref.id: made}.get, throttle=Throttle(1))
    task = asyncio.create_task(lane.block(made.ref.id, 0, 0, BLOCK))
    await asyncio.to_thread(made.read_at.wait, 60)
    began = time.monotonic()
    await server.close()
    assert time.monotonic() - began < 60  # at a byte a second it would last for days
    with pytest.raises(LinkLost):
        await task


async def test_a_long_listing_comes_in_pieces(wires, ends):
    class Long:
        listing = bytes(range(256)) * (3 * 4096 + 7)

    lane = ends.fetch(wires[0])
    ends.serve(wires[1], {PACKAGE: Long()}.get)
    wanted = type("Ref", (), {"id": PACKAGE, "listing": len(Long.listing)})()
    assert await lane.listing(wanted) == Long.listing
    with pytest.raises(ProtocolError, match="longer than was asked for"):
        await lane.listing(type("Ref", (), {"id": PACKAGE, "listing": 10})())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the round trip so")
@pytest.mark.parametrize(
    ("smoothed", "least", "size", "seconds"),
    [
        (4_700, 60, 232, 60e-6),  # a late acknowledgement among the first few
        (41_000, 40_000, 232, 40e-3),
        (300, 0xFFFF_FFFF, 232, 300e-6),  # nothing was measured yet
        (300, 60, 104, None),  # an old kernel
    ],
)
def test_a_late_acknowledgement_doesnt_make_a_way_long(smoothed, least, size, seconds):
    class Told:
        def getsockopt(self, *_):
            told = bytearray(232)
            told[68:72] = smoothed.to_bytes(4, sys.byteorder)
            told[148:152] = least.to_bytes(4, sys.byteorder)
            return bytes(told[:size])

    found = wire.round_trip_s(Told())
    assert found == (seconds if seconds is None else pytest.approx(seconds))
