"""Asking for content and serving it, over a pipe in memory that a test can look into."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import LinkLost, NotFound, ProtocolError, SourceChanged
from sleap_rtc.files import buffers
from sleap_rtc.protocol import frames
from sleap_rtc.transports import blocks, channel
from sleap_rtc.transports.blocks import BlockClient, BlockServer
from sleap_rtc.transports.throttle import Throttle

PACKAGE = "ab" * 32


class Pipe:
    """What a connection is to these two: a place to put binary messages."""

    def __init__(self) -> None:
        self.closed = False
        self.full = False
        self.waiting = 0
        self.freed = asyncio.Event()
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    async def room(self) -> None:
        while self.full:
            self.waiting += 1
            await self.freed.wait()

    async def send_binary(self, data: bytes) -> None:
        await self.room()
        if self.closed:
            raise LinkLost(peer="peer", why="closed")
        self.sent.put_nowait(bytes(data))

    async def next(self) -> frames.BlockFrame:
        async with asyncio.timeout(60):
            return frames.decode(await self.sent.get(), peer="test")


class Content:
    """Serves bytes that a test chose."""

    listing = b"the listing"

    def __init__(self, blocks: dict[int, bytes | Exception]) -> None:
        self.blocks = blocks

    def read(self, file: int, block: int) -> bytes:
        found = self.blocks[block]
        if isinstance(found, Exception):
            raise found
        return found


async def ask(pipe: Pipe, client: BlockClient, size: int) -> tuple[asyncio.Task, int]:
    task = asyncio.create_task(client.block(PACKAGE, 0, 3, size))
    asked = await pipe.next()
    assert isinstance(asked, frames.GetBlock)
    assert (asked.package, asked.file, asked.block) == (PACKAGE, 0, 3)
    return task, asked.request


def data(number: int, offset: int, content: bytes) -> frames.Data:
    return frames.Data(number, offset, memoryview(content))


async def test_pieces_in_order_make_a_block():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    client.handle(data(number, 0, b"abc"))
    client.handle(data(number, 3, b"def"))
    client.handle(frames.End(number, 6))
    assert await task == b"abcdef"


@pytest.mark.parametrize("size", [1, 100, BLOCK // 2 + 1, BLOCK])
async def test_a_block_of_any_size_in_pieces_of_any_size(size):
    content = bytes(n % 251 for n in range(size))
    for step in (size, size // 3 + 1, 61_681):
        pipe = Pipe()
        client = BlockClient(pipe, name="peer")
        task, number = await ask(pipe, client, size)
        for at in range(0, size, step):
            client.handle(data(number, at, content[at : at + step]))
        client.handle(frames.End(number, size))
        found = await task
        assert found == content
        buffers.give_back(found)


async def test_several_blocks_come_as_one_answer():
    pipe = Pipe()
    assert BlockClient(pipe, name="peer").at_once == 1
    client = BlockClient(pipe, name="peer", several=True)
    assert client.at_once == frames.MAX_SEVERAL
    task = asyncio.create_task(client.several(PACKAGE, [(0, 3), (7, 0)], [2, 4]))
    asked = await pipe.next()
    assert asked == frames.GetSeveral(asked.request, PACKAGE, ((0, 3), (7, 0)))
    content = Content({3: b"abcd", 0: b"ef", 1: NotFound(message="gone"), 2: bytes(BLOCK)})
    shelf = {PACKAGE: content}.get
    joined = blocks.answer(shelf, asked, peer="test")
    assert joined == b"abcdef"
    client.handle(data(asked.request, 0, joined))
    client.handle(frames.End(asked.request, 6))
    assert await task == (b"abcdef", "webrtc")
    for places, code in (((0, 3), (0, 1)), "not_found"), (((0, 2), (0, 3)), "usage"):
        refusal = blocks.answer(shelf, frames.GetSeveral(5, PACKAGE, places), peer="test")
        assert isinstance(refusal, frames.Refuse)
        assert (refusal.request, refusal.code) == (5, code)


async def test_it_is_idle_when_nothing_is_to_come_any_more():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    await client.idle()
    task = asyncio.create_task(client.block(PACKAGE, 0, 0, 3))
    asked = await pipe.next()
    idle = asyncio.create_task(client.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    client.handle(data(asked.request, 0, b"abc"))
    client.handle(frames.End(asked.request, 3))
    await idle
    assert await task == b"abc"


async def test_several_blocks_take_the_faster_way_while_there_is_one():
    class Fast:
        kind = "direct"
        lost = False

        async def source(self, size):
            assert size == 6
            return self

        async def several(self, package, places, size):
            if self.lost:
                raise LinkLost(peer="peer", why="gone")
            return b"direct"

    pipe, fast = Pipe(), Fast()
    client = BlockClient(pipe, name="peer", faster=fast, several=True)
    assert await client.several(PACKAGE, [(0, 0), (1, 0)], [3, 3]) == (b"direct", "direct")
    fast.lost = True
    task = asyncio.create_task(client.several(PACKAGE, [(0, 0), (1, 0)], [3, 3]))
    asked = await pipe.next()
    client.handle(data(asked.request, 0, b"by rtc"))
    client.handle(frames.End(asked.request, 6))
    assert await task == (b"by rtc", "webrtc")


async def test_a_block_may_turn_out_to_be_shorter_or_empty():
    """Whoever asked finds out: its hash is another."""
    client = BlockClient(Pipe(), name="peer")
    for content in (b"abc", b""):
        task, number = await ask(client._connection, client, 6)
        if content:
            client.handle(data(number, 0, content))
        client.handle(frames.End(number, len(content)))
        assert await task == content


async def test_requests_that_waited_for_room_arrive_in_order():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    pipe.full = True
    tasks = [asyncio.create_task(client.block(PACKAGE, 0, n, 6)) for n in range(3)]
    async with asyncio.timeout(60):
        while pipe.waiting < len(tasks):  # noqa: ASYNC110 - a few turns of the event loop
            await asyncio.sleep(0)
    # There is room now; whoever asks at this moment doesn't wait, and those who did wake later.
    pipe.full = False
    tasks.append(asyncio.create_task(client.block(PACKAGE, 0, 3, 6)))
    pipe.freed.set()
    numbers = [(await pipe.next()).request for _ in tasks]
    assert numbers == sorted(numbers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_listing_is_asked_for_by_its_package():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    wanted = PackageRef(id=PACKAGE, size=1, files=1, listing=9)
    task = asyncio.create_task(client.listing(wanted))
    asked = await pipe.next()
    assert asked == frames.GetListing(asked.request, PACKAGE)
    client.handle(data(asked.request, 0, b"123456789"))
    client.handle(frames.End(asked.request, 9))
    assert await task == b"123456789"


def raw(number, offset, content):
    return frames.data_frame(number, memoryview(content), offset)


async def test_pieces_may_come_past_the_event_loop():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 9)
    assert await asyncio.to_thread(client.take, raw(number, 0, b"abc"))
    client.handle(data(number, 3, b"def"))  # one that didn't
    assert await asyncio.to_thread(client.take, raw(number, 6, b"ghi"))
    assert not client.take(frames.encode(frames.End(number, 9)))
    client.handle(frames.End(number, 9))
    assert await task == b"abcdefghi"


async def test_what_isnt_the_next_piece_is_for_the_event_loop():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    for other in (
        b"",
        b"\x03",
        raw(number + 1, 0, b"abc"),
        raw(number, 1, b"abc"),
        raw(number, 0, b"abcdefg"),
        raw(number, 0, bytes(frames.MAX_CHUNK + 8)),
        frames.encode(frames.Refuse(number, "not_found", "no")),
        frames.encode(frames.GetBlock(number, PACKAGE, 0, 0)),
    ):
        assert not client.take(other)
    assert client.take(raw(number, 0, b"abc"))
    assert not client.take(raw(number, 0, b"abc"))
    # Behind the end of an answer nothing is written any more, though there would be room.
    assert not client.take(frames.encode(frames.End(number, 3)))
    assert not client.take(raw(number, 3, b"def"))
    client.handle(frames.End(number, 3))
    assert await task == b"abc"
    assert not client.take(raw(number, 3, b"def"))


async def test_content_past_the_event_loop_is_a_sign_of_life_and_counts(monkeypatch):
    taps = []

    class Tapped(Pipe):
        moved = 5

        def tap(self, take):
            taps.append(take)

        def send_text(self, data):
            pass

        async def receive(self):
            await asyncio.Event().wait()

        async def close(self):
            self.closed = True

    monkeypatch.setattr(channel, "TICK_S", 0.01)
    pipe = Tapped()
    proven = SimpleNamespace(
        purpose="blocks", peer=SimpleNamespace(name="peer"), session="s", features=()
    )
    at_work = channel.Channel(pipe, proven)
    heard = []
    monkeypatch.setattr(at_work._session, "heard", lambda now: heard.append(now) or [])
    running = asyncio.create_task(at_work.run())
    task, number = await ask(pipe, at_work.blocks, 3)
    assert not heard
    (take,) = taps
    piece = raw(number, 0, b"abc")
    assert await asyncio.to_thread(take, piece)
    assert not take(frames.encode(frames.End(number, 3)))
    assert at_work.moved == 5 + len(piece)
    async with asyncio.timeout(60):
        while not heard:  # noqa: ASYNC110 - until the next look at the clock
            await asyncio.sleep(0.01)
    at_work.abandon("the test is over")
    await running
    with pytest.raises(LinkLost):
        await task


async def test_a_long_listing_takes_memory_as_it_comes():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    wanted = PackageRef(id=PACKAGE, size=1, files=1, listing=200 * BLOCK)
    task = asyncio.create_task(client.listing(wanted))
    asked = await pipe.next()
    piece = bytes(range(256)) * 256
    for n in range(32):
        client.handle(data(asked.request, n * len(piece), piece))
    client.handle(frames.End(asked.request, 32 * len(piece)))
    assert await task == 32 * piece


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        (lambda n: data(n, 1, b"abc"), "out of order"),
        (lambda n: data(n, 0, b"abcdefg"), "longer"),
        (lambda n: frames.End(n, 6), "shorter"),
    ],
)
async def test_a_piece_out_of_place_breaks_the_protocol(piece, why):
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    with pytest.raises(ProtocolError, match=why):
        client.handle(piece(number))
    client.end(LinkLost(peer="peer", why="over"))
    with pytest.raises(LinkLost):
        await task


async def test_what_was_never_asked_for_is_put_up_with_twice():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    for frame in (data(number + 1, 0, b"abc"), frames.End(number + 7, 3)):
        client.handle(frame)
    client.handle(data(number, 0, b"abcdef"))
    client.handle(frames.End(number, 6))
    assert await task == b"abcdef"
    client.handle(frames.End(number, 6))  # what was asked for once may come again
    with pytest.raises(ProtocolError, match="never asked for"):
        client.handle(frames.Refuse(number + 1, "not_found", "There is none."))


async def test_a_refusal_is_raised_as_the_peers_error():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    client.handle(frames.Refuse(number, "source_changed", "a.bin changed while it was being sent."))
    with pytest.raises(SourceChanged, match=r"a\.bin changed"):
        await task


async def test_who_waits_no_longer_says_so_and_ignores_what_still_comes():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    task, number = await ask(pipe, client, 6)
    task.cancel()
    assert await pipe.next() == frames.Withdraw(number)
    with pytest.raises(asyncio.CancelledError):
        await task
    client.handle(data(number, 0, b"abcdef"))
    client.handle(frames.End(number, 6))


async def test_no_more_is_asked_for_than_the_credit():
    pipe = Pipe()
    client = BlockClient(pipe, name="peer")
    tasks = [
        asyncio.create_task(client.block(PACKAGE, 0, n, 1))
        for n in range(frames.MAX_OUTSTANDING + 4)
    ]
    numbers = [(await pipe.next()).request for _ in range(frames.MAX_OUTSTANDING)]
    assert pipe.sent.empty()
    client.handle(data(numbers[0], 0, b"x"))
    client.handle(frames.End(numbers[0], 1))
    assert isinstance(await pipe.next(), frames.GetBlock)
    client.end(LinkLost(peer="peer", why="over"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == b"x"
    assert all(isinstance(r, LinkLost) for r in results[1:])


async def test_after_the_end_asking_fails_at_once():
    client = BlockClient(Pipe(), name="peer")
    client.end(LinkLost(peer="peer", why="over"))
    with pytest.raises(LinkLost, match="over"):
        await client.block(PACKAGE, 0, 0, 1)


# ── serving ──────────────────────────────────────────────────────────────────


async def serve(pipe: Pipe, content: Content) -> tuple[BlockServer, asyncio.Task]:
    server = BlockServer(pipe, shelf={PACKAGE: content}.get, peer="peer")
    return server, asyncio.create_task(server.run())


async def answer(pipe: Pipe) -> bytes:
    parts = []
    while True:
        frame = await pipe.next()
        if isinstance(frame, frames.End):
            assert frame.length == sum(map(len, parts))
            return b"".join(parts)
        assert isinstance(frame, frames.Data)
        parts.append(bytes(frame.content))


async def test_what_is_asked_for_comes_in_the_order_of_the_requests():
    pipe, big = Pipe(), bytes(200_000)
    server, running = await serve(pipe, Content({0: b"zero", 1: big}))
    server.handle(frames.GetListing(1, PACKAGE))
    server.handle(frames.GetBlock(2, PACKAGE, 0, 1))
    server.handle(frames.GetBlock(3, PACKAGE, 0, 0))
    assert [await answer(pipe) for _ in range(3)] == [Content.listing, big, b"zero"]
    running.cancel()


async def test_an_error_is_a_refusal_and_the_next_request_is_served():
    pipe = Pipe()
    server, running = await serve(pipe, Content({0: SourceChanged(path="a.bin"), 1: b"one"}))
    server.handle(frames.GetBlock(1, PACKAGE, 0, 0))
    server.handle(frames.GetBlock(2, "cd" * 32, 0, 0))
    server.handle(frames.GetBlock(3, PACKAGE, 0, 1))
    first, second = await pipe.next(), await pipe.next()
    assert (first.code, second.code) == ("source_changed", NotFound.code)
    assert await answer(pipe) == b"one"
    running.cancel()


async def test_what_was_withdrawn_is_not_sent():
    pipe = Pipe()
    server, running = await serve(pipe, Content({0: b"zero", 1: b"one"}))
    server.handle(frames.GetBlock(1, PACKAGE, 0, 0))
    server.handle(frames.Withdraw(1))
    server.handle(frames.GetBlock(2, PACKAGE, 0, 1))
    assert await answer(pipe) == b"one"
    running.cancel()


async def test_a_number_used_twice_breaks_the_protocol():
    server, running = await serve(Pipe(), Content({0: b""}))
    server.handle(frames.GetBlock(5, PACKAGE, 0, 0))
    with pytest.raises(ProtocolError, match="twice"):
        server.handle(frames.GetBlock(5, PACKAGE, 0, 0))
    running.cancel()


async def test_what_is_sent_is_limited_piece_by_piece():
    now = 0.0
    took = []

    class Timed(Pipe):
        async def send_binary(self, data: bytes) -> None:
            took.append(now)
            await super().send_binary(data)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    pipe = Timed()

    throttle = Throttle(frames.MAX_CHUNK, clock=lambda: now, sleep=sleep)
    content = Content({0: bytes(4 * frames.MAX_CHUNK), 1: b"x"})
    server = BlockServer(pipe, shelf=lambda _: content, peer="peer", throttle=throttle)
    running = asyncio.create_task(server.run())
    server.handle(frames.GetBlock(1, PACKAGE, 0, 0))
    server.handle(frames.GetBlock(2, PACKAGE, 0, 1))
    for _ in range(7):
        await pipe.next()
    # A quarter of a second's worth may go at once.
    assert took == pytest.approx([0.75, 1.75, 2.75, 3.75, 3.75, 3.75, 3.75], abs=0.01)
    running.cancel()


# ── peers that only look alive ───────────────────────────────────────────────


async def test_a_peer_that_never_answers_is_given_up(monkeypatch):
    """Its link may be well: a transfer has other peers to ask."""
    monkeypatch.setattr(blocks, "STALLED_S", 0.1)
    pipe = Pipe()
    client = BlockClient(pipe, name="eve")
    task, _ = await ask(pipe, client, 6)
    with pytest.raises(LinkLost, match="sends next to nothing"):
        await task
    listing = asyncio.create_task(
        client.listing(PackageRef(id=PACKAGE, size=1, files=1, listing=9))
    )
    with pytest.raises(LinkLost, match="sends next to nothing"):
        await listing


async def test_a_peer_that_trickles_is_given_up_too(monkeypatch):
    monkeypatch.setattr(blocks, "STALLED_S", 0.2)
    pipe = Pipe()
    client = BlockClient(pipe, name="eve")
    task, number = await ask(pipe, client, 1_000_000)
    offset = 0
    async with asyncio.timeout(60):
        while not task.done():
            client.handle(data(number, offset, b"x"))
            offset += 1
            await asyncio.wait([task], timeout=0.01)
    with pytest.raises(LinkLost, match="sends next to nothing"):
        await task


async def test_a_slow_peer_is_waited_for(monkeypatch):
    now = 1_000.0
    monkeypatch.setattr(blocks, "time", SimpleNamespace(monotonic=lambda: now))
    pipe = Pipe()
    client = BlockClient(pipe, name="ann")
    task, number = await ask(pipe, client, 8 * 65_520)
    for step in range(8):
        now += blocks.STALLED_S / 3
        client._look()
        client.handle(data(number, step * 65_520, bytes(65_520)))
    client.handle(frames.End(number, 8 * 65_520))
    assert len(await task) == 8 * 65_520
