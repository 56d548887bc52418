"""Shortcuts: taken when they are worth it, and never in the way of the link."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry, listing_of, package, ref
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import Conflict, LinkLost, NotPermitted, ProtocolError
from sleap_rtc.protocol import direct
from sleap_rtc.protocol.link import FEATURES, Describe, Description
from sleap_rtc.transfer.choice import SMALL
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.direct import meeting, shortcut
from sleap_rtc.transports.direct.shortcut import Shortcut, Ways
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.throttle import Throttle

SESSION = "5d9b2a62-0d4e-4c53-9ac9-1a2b3c4d5e6f"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Two:
    """A side that fetches and one that serves; what one asks, the other answers."""

    def __init__(self, made, *, wish="auto", peer="auto", able=True) -> None:
        self.clock = Clock()
        self.asked = []
        self.fetcher = self._make(Ways(wish), {}, able=able)
        self.server = self._make(Ways(peer), {made.ref.id: made}, able=True)

    def _make(self, ways, shelf, *, able):
        async def ask(body):
            self.asked.append(body)
            return await self.server.answer(body)

        return Shortcut(
            ways,
            session=SESSION,
            peer="eve",
            able=able,
            ask=ask,
            shelf=shelf.get,
            throttle=None,
            clock=self.clock,
        )

    async def opened(self):
        async with asyncio.timeout(60):
            if (lane := await self.fetcher.source(0)) is not None:
                return lane
            await self.settled()
            return await self.fetcher.source(0)

    async def settled(self):
        async with asyncio.timeout(60):
            for side in (self.fetcher, self.server):
                for task in (side._opening, side._answering):
                    if task is not None:
                        await asyncio.wait((task,))

    async def close(self):
        async with asyncio.timeout(60):
            await asyncio.gather(self.fetcher.close(), self.server.close())


@pytest.fixture
async def two(made, loopback):
    """Makes the two sides; they are closed at the end."""
    sides = []

    def make(**options):
        sides.append(Two(made, **options))
        return sides[-1]

    yield make
    for each in sides:
        await each.close()


async def test_little_content_is_not_worth_it(two):
    pair = two()
    assert await pair.fetcher.source(SMALL - 1) is None
    assert not pair.asked
    assert await pair.fetcher.source(1) is None
    await pair.opened()
    assert len(pair.asked) == 1


async def test_nobody_waits_until_it_is_there(two, made):
    pair = two()
    assert await pair.fetcher.source(SMALL) is None
    lane = await pair.opened()
    await made.fetch_from(lane)
    assert await pair.fetcher.source(BLOCK) is lane


async def test_who_asks_for_it_waits_for_it(two, made):
    pair = two(wish="direct")
    lane = await pair.fetcher.source(1)
    await made.fetch_from(lane)


async def test_who_wants_storage_has_one_for_what_storage_does_not_give(two, made):
    pair = two(wish="s3", peer="s3")
    assert await pair.fetcher.source(SMALL) is None  # nobody waits for it
    await made.fetch_from(await pair.opened())


async def test_who_wants_none_makes_none_and_lets_nobody_in(two):
    pair = two(wish="webrtc")
    assert await pair.fetcher.source(10 * SMALL) is None
    assert not pair.asked
    pair = two(peer="webrtc")
    await pair.fetcher.source(SMALL)
    await pair.settled()
    assert len(pair.asked) == 1
    pair.clock.now += 10_000
    await pair.fetcher.source(SMALL)
    assert len(pair.asked) == 1


async def test_a_peer_that_is_too_old_is_not_asked(two):
    pair = two(able=False)
    assert await pair.fetcher.source(SMALL) is None
    assert not pair.asked


async def test_local_means_this_machine_alone(two):
    pair = two(wish="local")
    await pair.fetcher.source(1)
    assert pair.asked[0].end.addresses == ()
    assert pair.asked[0].end.path


async def test_a_lost_one_is_made_anew_after_a_while(two, made):
    pair = two()
    await pair.fetcher.source(SMALL)
    lane = await pair.opened()
    await lane.close()
    assert await pair.fetcher.source(SMALL) is None
    assert len(pair.asked) == 1
    pair.clock.now += shortcut.RETRY_LOST_S
    await made.fetch_from(await pair.opened())
    assert len(pair.asked) == 2


async def test_without_a_way_it_is_tried_ever_more_rarely(two, monkeypatch):
    monkeypatch.setattr(direct, "WITHIN_S", 0.02)
    monkeypatch.setattr(Ways, "tcp", False)
    monkeypatch.setattr(meeting, "_is_private_socket", lambda _path: False)
    pair = two()
    pauses = []
    for _ in range(8):
        began = pair.clock.now
        tries = len(pair.asked)
        while len(pair.asked) == tries:
            await pair.fetcher.source(SMALL)
            await pair.settled()
            pair.clock.now += 10
        pauses.append(pair.clock.now - began)
    assert pauses == [10, 30, 60, 120, 240, 480, 600, 600]


async def test_a_peer_that_breaks_the_rules_gets_no_other(two):
    pair = two()
    await pair.fetcher.source(SMALL)
    lane = await pair.opened()
    pair.fetcher._fetch_ended(
        lane, ProtocolError(peer="eve", why="content that was never asked for")
    )
    pair.clock.now += 10_000
    assert await pair.fetcher.source(SMALL) is None
    assert len(pair.asked) == 1
    await lane.close()


async def test_one_at_a_time_is_made(two):
    pair = two()
    ours = await pair.fetcher._ways.announce()
    asked = direct.OpenDirect(end=ours.end)
    answers = await asyncio.gather(
        *(pair.server.answer(asked) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in answers] == [direct.DirectOpened, Conflict, Conflict]
    with pytest.raises(Conflict):
        await pair.server.answer(asked)
    pair.fetcher._ways.finish(ours)


async def test_a_new_one_takes_the_place_of_the_one_before(two, made):
    pair = two()
    await pair.fetcher.source(SMALL)
    old = await pair.opened()
    pair.fetcher._fetch = None
    pair.clock.now += 10_000
    new = await pair.opened()
    with pytest.raises(LinkLost):
        await old.block(made.ref.id, 0, 0, BLOCK)
    await made.fetch_from(new)
    await old.close()


async def test_a_peer_is_not_announced_to_all_the_time(two):
    pair = two()
    await pair.fetcher.source(SMALL)
    await pair.opened()
    asked = pair.asked[0]
    with pytest.raises(Conflict):
        await pair.server.answer(asked)
    pair.clock.now += shortcut.ANSWER_EVERY_S
    await pair.server.answer(asked)


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), RuntimeError("oh")])
async def test_a_full_disk_or_a_fault_leaves_content_to_the_link(two, monkeypatch, fault):
    def fail(*_given, **_options):
        raise fault

    monkeypatch.setattr(meeting.Identity, "tls", fail)
    pair = two()
    for _ in range(3):
        assert await pair.fetcher.source(SMALL) is None
        await pair.settled()
    assert len(pair.asked) == 1
    monkeypatch.undo()


async def test_a_lane_that_cant_begin_leaves_content_to_the_link(two, monkeypatch):
    def fail(lane):
        lane._shut()
        raise LinkLost(peer="eve", why="the direct connection got no thread")

    monkeypatch.setattr(shortcut.FetchLane, "start", fail)
    pair = two()
    for _ in range(3):
        assert await pair.fetcher.source(SMALL) is None
        await pair.settled()
    assert len(pair.asked) == 1


async def test_without_a_folder_there_is_still_the_network(two, monkeypatch):
    def fail(**_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(meeting.tempfile, "mkdtemp", fail)
    door = meeting.Door(tcp=True, local=True)
    assert door.addresses
    assert door.path == ""
    door.close()


async def test_so_many_announcements_are_open_at_a_time():
    ways = Ways()
    ours = [await ways.announce() for _ in range(shortcut.MAX_MEETINGS)]
    with pytest.raises(Conflict):
        await ways.announce()
    ways.finish(ours.pop())
    ours.append(await ways.announce())
    for each in ours:
        ways.finish(each)
    with pytest.raises(NotPermitted):
        await Ways("webrtc").announce()


async def test_both_sides_make_their_identity_before_it_is_asked_for(two):
    pair = two()
    async with asyncio.timeout(60):
        made = await asyncio.gather(pair.fetcher._preparing, pair.server._preparing)
    ways = pair.fetcher._ways, pair.server._ways
    assert [await each.prepare() for each in ways] == made
    assert made[0].certificate != made[1].certificate


@pytest.mark.parametrize("options", [{"wish": "webrtc"}, {"able": False}])
async def test_none_is_made_where_none_is_used(two, options):
    pair = two(**options)
    assert pair.fetcher._preparing is None
    assert pair.fetcher._ways._identity is None


async def test_closed_in_the_middle_it_leaves_nothing(two):
    pair = two()
    await pair.fetcher.source(SMALL)
    await asyncio.sleep(0)
    await pair.close()
    assert pair.fetcher._ways._meetings == pair.server._ways._meetings == 0
    assert await pair.fetcher.source(SMALL) is None


# ── beside a real link ───────────────────────────────────────────────────────


class BigFile:
    """A package of one file of random blocks."""

    def __init__(self, blocks: int) -> None:
        self.content = random.Random(7).randbytes(blocks * BLOCK)
        hashes = b"".join(
            blake3(self.content[n * BLOCK : (n + 1) * BLOCK]).digest() for n in range(blocks)
        )
        self.package = package([FileEntry("data.bin", len(self.content), hashes)])
        self.ref = ref(self.package)
        self.blocks = blocks

    @property
    def listing(self) -> bytes:
        return listing_of(self.package.files)

    def read(self, file: int, block: int) -> bytes:
        return self.content[block * BLOCK : (block + 1) * BLOCK]


class Linked:
    """A client's link to a worker, and the sources that it has had."""

    def __init__(self, rig) -> None:
        self.client = rig.add("client")
        self.worker = rig.add("worker", accepts=True)
        self.client.switchboard.ways = Ways()
        self.worker.switchboard.ways = Ways()
        self.worker.handler = self._answer
        self.made = BigFile(24)
        self.worker.shelf = {self.made.ref.id: self.made}.get
        self.sources = asyncio.Queue()
        self.rig = rig

    async def _answer(self, _channel, _body, _request):
        return Description(worker=WorkerInfo(version="1"))

    def link(self):
        return Link(
            self.client.switchboard,
            room=self.rig.room,
            locate=lambda: self.worker.presence,
            name="worker",
            on_blocks=lambda source, up: self.sources.put_nowait(source) if up else None,
        )

    async def fetch(self, source, blocks=range(24), *, meanwhile=None):
        """Fetch blocks, and compare; ``meanwhile`` is called with each number that has come."""
        window = asyncio.Semaphore(4)

        async def one(n):
            async with window:
                found = await source.block(self.made.ref.id, 0, n, BLOCK)
            assert found == self.made.read(0, n)
            if meanwhile is not None:
                meanwhile(n)

        await asyncio.gather(*(one(n) for n in blocks))

    async def open(self, link):
        """The link's source, once it has its shortcut."""
        link.want_blocks()
        async with asyncio.timeout(60):
            source = await self.sources.get()
            await self.fetch(source, range(8))
            while source._faster._fetch is None:
                await self.fetch(source, range(1))
                await asyncio.sleep(0.01)
        return source


@pytest.fixture
def linked(rig):
    return Linked(rig)


@pytest.mark.webrtc
@pytest.mark.parametrize("unix", [True, False])
async def test_content_comes_directly_beside_a_link(linked, monkeypatch, unix):
    monkeypatch.setattr(meeting, "_UNIX", unix)
    async with linked.link() as link:
        source = await linked.open(link)
        lane = source._faster._fetch
        family = socket.AF_UNIX if unix else socket.AF_INET
        assert lane._wire.sock.family == family
        before = next(source._numbers)
        await linked.fetch(source)
        assert next(source._numbers) == before + 1  # nothing was asked over WebRTC


@pytest.mark.webrtc
async def test_what_a_lost_shortcut_owes_comes_over_the_link(linked):
    async with linked.link() as link:
        source = await linked.open(link)
        lane = source._faster._fetch

        def cut(number):
            if number == 6:
                lane._wire.interrupt()

        await linked.fetch(source, meanwhile=cut)
        assert source._faster._fetch is None


@pytest.mark.webrtc
async def test_a_whole_transfer_takes_both_ways(linked, tmp_path):
    """As the product fetches: to the disk, checked, with the direct way cut again and again."""
    async with linked.link() as link:
        source = await linked.open(link)
        cuts = 0

        def cut(progress):
            nonlocal cuts
            lane = source._faster._fetch
            if lane is not None and progress.phase == "receiving" and progress.done:
                cuts += 1
                lane._wire.interrupt()
                source._faster._next_at = 0.0

        staged = await fetch(
            linked.made.ref,
            sources=Sources(source),
            destination="here",
            incoming=tmp_path,
            on_progress=cut,
            throttle=Throttle(30 * BLOCK),
        )
        with staged:
            assert (staged.path / "data.bin").read_bytes() == linked.made.content
        assert cuts


@pytest.mark.webrtc
async def test_the_shortcut_ends_with_its_connection_and_comes_back_with_the_next(linked):
    async with linked.link() as link:
        source = await linked.open(link)
        lane = source._faster._fetch
        serving = [c._shortcut._serve for c in linked.worker.channels if c._shortcut]
        for channel in linked.worker.channels:
            if channel.proven.purpose == "blocks":
                channel.abandon("the network is gone")
        async with asyncio.timeout(60):
            again = await linked.sources.get()
        assert again is not source
        for each in (lane, *serving):
            async with asyncio.timeout(60):
                await each._over.wait()
        await linked.fetch(again)
        assert await link.request(Describe()) == Description(worker=WorkerInfo(version="1"))


@pytest.mark.webrtc
@pytest.mark.parametrize("who", ["client", "worker"])
@pytest.mark.parametrize("how", ["old", "webrtc", "none"])
async def test_with_whoever_cant_or_wont_all_goes_over_the_link(linked, who, how):
    device = getattr(linked, who)
    if how == "old":
        device.trust.features = tuple(f for f in FEATURES if f != direct.FEATURE)
    else:
        device.switchboard.ways = Ways("webrtc") if how == "webrtc" else None
    async with linked.link() as link:
        link.want_blocks()
        async with asyncio.timeout(60):
            source = await linked.sources.get()
            await linked.fetch(source)
        assert source._faster is None or source._faster._fetch is None
        # Nobody was asked what it can't understand, which would have ended the connection.
        assert source._lost is None
        assert (await link.request(Describe())).worker.version == "1"
