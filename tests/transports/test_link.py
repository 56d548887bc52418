"""The conformance suite of links, on real WebRTC connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
import time
import uuid

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.client.asking import WorkerLibrary
from sleap_rtc.domain.packages import BLOCK, FileEntry, listing_of, package, ref
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import (
    DeadlineExceeded,
    FeatureMissing,
    LinkLost,
    NetworkError,
    NotFound,
    NotPermitted,
    NotTrusted,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
    SourceChanged,
    UnknownModel,
)
from sleap_rtc.protocol import frames
from sleap_rtc.protocol.library import LibraryChanged, ListModels, ModelsTold
from sleap_rtc.protocol.link import (
    SILENT_AFTER_S,
    Accepted,
    Describe,
    Description,
    FindModel,
    ListJobs,
)
from sleap_rtc.protocol.peering import Answer, Offer
from sleap_rtc.testing import netns
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather
from sleap_rtc.transports import channel as channels
from sleap_rtc.transports import link as module
from sleap_rtc.transports import switchboard, webrtc
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.throttle import Throttle

pytestmark = [pytest.mark.webrtc]

ANY_PAIR = pytest.mark.parametrize(
    "shells",
    [("fast", "fast"), ("fast", "portable"), ("portable", "fast"), ("portable", "portable")],
    ids="-".join,
    indirect=True,
)
"""The libraries of both sides. What connections do is in test_peer.py for all of them; links are
tested over the fast one, and once more over the others where timing or much content counts."""
PORTABLE = pytest.mark.parametrize(
    "shells", [("fast", "portable"), ("portable", "fast")], ids="-".join, indirect=True
)


class MadeFile:
    """A package of one file whose content is computed."""

    def __init__(self, size: int) -> None:
        self.content = random.Random(7).randbytes(size)
        hashes = b"".join(
            blake3(self.content[at : at + BLOCK]).digest() for at in range(0, size, BLOCK)
        )
        self.package = package([FileEntry(path="data.bin", size=size, hashes=hashes)])
        self.ref = ref(self.package)
        self.broken: set[int] = set()

    @property
    def listing(self) -> bytes:
        return listing_of(self.package.files)

    def read(self, file: int, block: int) -> bytes:
        if file or block >= self.package.files[0].block_count:
            raise NotFound(message="There is no such block.")
        if block in self.broken:
            raise SourceChanged(path="data.bin")
        return self.content[block * BLOCK : (block + 1) * BLOCK]


async def answers(_channel, body, _request):
    if isinstance(body, Describe):
        return Description(worker=WorkerInfo(version="1", models=3))
    if isinstance(body, ListJobs):
        await asyncio.Event().wait()
    if isinstance(body, FindModel):
        raise UnknownModel(name=body.name)
    return Accepted()


class Pair:
    """A client's link to a worker, both ready."""

    def __init__(self, rig):
        self.client = rig.add("client")
        self.worker = rig.add("worker", accepts=True)
        self.worker.handler = answers
        self.rig = rig
        self.states = []
        self.sources = asyncio.Queue()

    def link(self, **options):
        return Link(
            self.client.switchboard,
            room=self.rig.room,
            locate=lambda: self.worker.presence,
            name="worker",
            on_state=self.states.append,
            on_blocks=lambda source, up: self.sources.put_nowait(source) if up else None,
            **options,
        )

    async def serve(self, made):
        self.worker.shelf = {made.ref.id: made}.get


@pytest.fixture
def pair(rig):
    return Pair(rig)


async def fetch(source, made, *, at_once=8):
    """Fetch every block, as a transfer would, and compare."""
    assert await source.listing(made.ref) == made.listing
    entry = made.package.files[0]
    window = asyncio.Semaphore(at_once)

    async def one(index):
        async with window:
            return await source.block(made.ref.id, 0, index, entry.block_size(index))

    blocks = await asyncio.gather(*(one(i) for i in range(entry.block_count)))
    assert b"".join(blocks) == made.content


@ANY_PAIR
async def test_a_request_is_answered(pair):
    async with pair.link() as link:
        answer = await link.request(Describe())
    assert answer == Description(worker=WorkerInfo(version="1", models=3))
    assert pair.states == ["up", "closed"]


async def test_the_peers_error_arrives_as_the_same_class(pair):
    async with pair.link() as link:
        with pytest.raises(UnknownModel, match="no model 'zebra'"):
            await link.request(FindModel(name="zebra"))


@pytest.mark.parametrize("old", ["worker", "client"])
async def test_an_older_peer_is_not_asked_what_it_cant_understand(pair, old):
    """It would end the connection over a message of an unknown kind."""
    asked = []

    async def handler(channel, body, request):
        asked.append(type(body))
        return await answers(channel, body, request)

    pair.worker.handler = handler
    getattr(pair, old).trust.features = ("blocks", "jobs", "models")
    library = WorkerLibrary("worker")
    async with pair.link(on_up=library.again, on_notice=library.noticed) as link:
        library.link = link
        for question in (library.page(ListModels()), library.info("fly"), library.exists("fly")):
            with pytest.raises(FeatureMissing, match=r"older sleap-rtc.* what is in its library"):
                await question
        with pytest.raises(FeatureMissing):
            await library.part("0a1b2c3d", ("0" * 64,))
        # All the rest goes on as ever, over the same connection.
        await link.request(Describe())
        with pytest.raises(UnknownModel):
            await link.request(FindModel(name="fly"))
    assert asked == [Describe, FindModel]
    assert pair.states == ["up", "closed"]


async def test_peers_of_one_age_ask_about_libraries_and_tell_of_changes(pair):
    told = asyncio.Queue()

    async def handler(channel, body, request):
        if isinstance(body, ListModels):
            await channel.tell(LibraryChanged(models=("0a1b2c3d",)))
            return ModelsTold(models=())
        return await answers(channel, body, request)

    pair.worker.handler = handler
    library = WorkerLibrary("worker")
    library.on_change = told.put_nowait
    async with pair.link(on_up=library.again, on_notice=library.noticed) as link:
        library.link = link
        assert await library.page(ListModels()) == ModelsTold(models=())
        async with asyncio.timeout(60):
            assert await told.get() == ("0a1b2c3d",)


async def test_a_request_without_an_answer_ends_at_its_deadline(pair):
    async with pair.link() as link:
        await link.request(Describe())
        with pytest.raises(DeadlineExceeded, match="worker"):
            await link.request(ListJobs(), within_s=0.3)
        assert isinstance(await link.request(Describe()), Description)


async def test_a_client_answers_no_requests(pair):
    async with pair.link() as link:
        await link.request(Describe())
        channel = pair.worker.channels[0]
        with pytest.raises(ProtocolError, match="to a client"):
            await channel.request(Describe(), id="1", within_s=60)


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


async def test_a_peer_that_is_not_online_is_named(pair):
    link = Link(pair.client.switchboard, room=pair.rig.room, locate=lambda: None, name="gpu-1")
    async with link:
        with pytest.raises(PeerUnreachable, match="gpu-1 cannot be reached: it is not online"):
            await link.request(Describe(), within_s=0.2)


@ANY_PAIR
async def test_a_lost_connection_is_built_anew_and_requests_go_on(pair):
    ups = []

    async def on_up(channel):
        ups.append(channel)

    async with pair.link(on_up=on_up) as link:
        await link.request(Describe())
        await pair.worker.channels[0].close("as a test wants it")
        answer = await link.request(Describe(), within_s=60)
        assert isinstance(answer, Description)
        assert len(ups) == 2
        assert pair.states[:3] == ["up", "down", "up"]


async def test_a_request_that_was_on_its_way_is_asked_again(pair):
    seen = []
    asked = asyncio.Event()

    async def slow(channel, body, request):
        seen.append(request)
        if len(seen) == 1:
            asked.set()
            await asyncio.Event().wait()
        return await answers(channel, body, request)

    pair.worker.handler = slow
    async with pair.link() as link:
        asking = asyncio.create_task(link.request(Describe(), within_s=60, id="the-one"))
        channel = await asyncio.wait_for(pair.worker.arrivals.get(), 60)
        await asyncio.wait_for(asked.wait(), 60)
        await channel.close("as a test wants it")
        assert isinstance(await asking, Description)
        assert seen == ["the-one", "the-one"]


def replaced_fingerprint(message):
    """What a server in the middle would do: its own certificate in place of the peer's."""
    if isinstance(message, Offer | Answer):
        other = ":".join(["AB"] * 32)
        line = f"a=fingerprint:sha-256 {other}\r\n"
        sdp = re.sub(r"a=fingerprint:sha-256 \S+\r\n", line, message.sdp)
        assert sdp != message.sdp
        return msgspec.structs.replace(message, sdp=sdp)
    return message


async def test_a_replaced_fingerprint_never_connects(pair, monkeypatch):
    monkeypatch.setattr(switchboard, "OPEN_WITHIN_S", 3.0)
    pair.rig.change = replaced_fingerprint
    async with pair.link() as link:
        with pytest.raises(PeerUnreachable):
            await link.request(Describe(), within_s=4)
    assert pair.worker.channels == []


@ANY_PAIR
async def test_a_server_in_the_middle_with_certificates_of_its_own_is_noticed(rig):
    """It ends the connection of each side at itself: what the handshake is for."""
    client, worker = rig.add("client"), rig.add("worker", accepts=True)
    middle = rig.add("middle", trust=rig.trust("middle"), accepts=True)

    # The client dials what the server calls the worker, and the device there is another one.
    link = Link(
        client.switchboard,
        room=rig.room,
        locate=lambda: msgspec.structs.replace(worker.presence, connection=middle.name),
        name="worker",
    )
    async with link:
        with pytest.raises(NotPermitted):
            await link.request(Describe(), within_s=60)
    assert worker.channels == []


async def test_somebody_without_the_rooms_trust_is_refused(rig):
    worker = rig.add("worker", accepts=True)
    eve = rig.add("eve", trust=rig.stranger("eve"))
    async with Link(
        eve.switchboard, room=rig.room, locate=lambda: worker.presence, name="worker"
    ) as link:
        with pytest.raises(NotPermitted):
            await link.request(Describe(), within_s=60)
    assert worker.channels == []


@pytest.mark.parametrize(("role", "trusted"), [("worker", True), ("viewer", False)])
async def test_only_who_may_work_is_taken_for_a_worker(rig, role, trusted):
    """The server says who is a worker; the certificate says who may be."""
    client = rig.add("client")
    worker = rig.add("worker", trust=rig.granted("eve", role), accepts=True)
    worker.handler, worker.trust.name = answers, "gpu-1"
    async with Link(
        client.switchboard, room=rig.room, locate=lambda: worker.presence, name="gpu-1"
    ) as link:
        if trusted:
            assert isinstance(await link.request(Describe(), within_s=60), Description)
        else:
            with pytest.raises(NotTrusted, match="eve, as which gpu-1 answers"):
                await link.request(Describe(), within_s=60)


async def test_a_fault_here_leaves_no_connection_under_way(rig, monkeypatch):
    """Each one left open would count against those that may be under way."""
    monkeypatch.setattr(channels, "HANDSHAKE_SECONDS", 3_600)
    client, worker = rig.add("client"), rig.add("worker", accepts=True)

    def fail(**_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(worker.trust, "setup", fail)
    with pytest.raises(NetworkError):  # at once, not when the handshake's time is over
        async with asyncio.timeout(60):
            await client.switchboard.dial(
                room=rig.room,
                to="worker",
                device=worker.trust.key.device,
                name="worker",
                session=str(uuid.uuid4()),
                purpose="control",
            )
    for attempt in worker.switchboard._attempts.values():
        connection = attempt.connection
        with contextlib.suppress(LinkLost):
            async with asyncio.timeout(60):
                await connection.receive()
        assert connection.closed


async def test_a_room_that_this_device_is_not_in_is_declined(rig):
    client, deaf = rig.add("client"), rig.add("deaf", accepts=False)
    async with Link(
        client.switchboard, room=rig.room, locate=lambda: deaf.presence, name="deaf"
    ) as link:
        with pytest.raises(PeerUnreachable):
            await link.request(Describe(), within_s=2)


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


class LateReturn:
    """A library's connection whose answer to a description comes when it is open already."""

    def __init__(self, real, opened):
        self.real, self.opened = real, opened

    def __getattr__(self, name):
        return getattr(self.real, name)

    async def set_remote_description(self, description):
        await self.real.set_remote_description(description)
        await asyncio.wait([self.opened])


async def test_a_connection_that_opens_before_the_description_is_reported_applied(
    pair, monkeypatch
):
    make = webrtc.WebRtc._make

    def late(self, ice_servers):
        # The answerer's can't open before it has answered.
        real = make(self, ice_servers)
        return LateReturn(real, self._opened) if self._peer == "worker" else real

    monkeypatch.setattr(webrtc.WebRtc, "_make", late)
    async with pair.link() as link:
        assert isinstance(await link.request(Describe(), within_s=60), Description)


def moved(pair, where):
    """The worker's process signed in anew."""
    pair.worker.name = "elsewhere"
    pair.rig.devices["elsewhere"] = pair.worker
    return msgspec.structs.replace(where, connection="elsewhere")


async def test_a_peer_that_came_back_while_it_was_dialled_is_dialled_anew(pair, rig):
    """The dial to where it was would wait for 30 s."""
    lost = asyncio.Event()

    def change(message):
        if not lost.is_set() and isinstance(message, Offer):
            lost.set()
            return None
        return message

    rig.change = change
    where = pair.worker.presence
    link = Link(pair.client.switchboard, room=rig.room, locate=lambda: where, name="worker")
    async with link:
        await lost.wait()
        where = moved(pair, where)
        link.look_again()
        assert isinstance(await link.request(Describe(), within_s=60), Description)


async def test_a_silent_peer_that_is_online_as_somebody_else_has_ended(pair, rig):
    rig.network = ImpairedNetwork(netns.inside(), Weather())
    where = pair.worker.presence
    silent = asyncio.Event()
    link = Link(
        pair.client.switchboard,
        room=rig.room,
        locate=lambda: where,
        name="worker",
        on_state=lambda state: silent.set() if state == "silent" else None,
    )
    async with link:
        await link.request(Describe(), within_s=60)
        first = link._at["control"][0]
        # Being online as somebody else proves nothing while it speaks.
        where = moved(pair, where)
        link.look_again()
        await link.request(Describe(), within_s=60)
        assert link._at["control"][0] is first

        rig.network.weather.cut = True
        await asyncio.wait_for(silent.wait(), 60)
        rig.network.weather.cut = False
        assert isinstance(await link.request(Describe(), within_s=60), Description)
        assert link._at["control"][0] is not first


async def test_a_fault_of_ours_reaches_whoever_waits_for_the_link(pair, monkeypatch):
    async def broken(**_):
        raise ValueError("broken")

    monkeypatch.setattr(pair.client.switchboard, "dial", broken)
    async with pair.link() as link:
        with pytest.raises(SleapRtcError, match="broken"):
            await link.request(Describe(), within_s=60)
