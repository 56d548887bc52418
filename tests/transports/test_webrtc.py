"""The fast library's own ways; what all libraries do alike is in test_peer.py."""

from __future__ import annotations

import asyncio
import statistics
import uuid
from types import SimpleNamespace

import pytest

from sleap_rtc.errors import LinkLost, NotPermitted
from sleap_rtc.protocol.peering import Offer
from sleap_rtc.testing.distance import Line, long_line, over_line
from sleap_rtc.transports import connection as seam
from sleap_rtc.transports import peer, webrtc
from sleap_rtc.transports.pacing import Pace

pytestmark = [pytest.mark.webrtc]


class Deaf:
    """A data channel to a peer that reads nothing."""

    def __init__(self):
        self.queued = 0

    def send(self, data, _binary):
        self.queued += len(data)

    def buffered_amount(self):
        return self.queued

    def close(self):
        pass


async def test_who_asks_and_never_reads_is_cut_off(address):
    async def signal(_message):
        pass

    connection = webrtc.WebRtc(attempt=str(uuid.uuid4()), peer="eve", signal=signal)
    connection._channel = deaf = Deaf()
    most = seam.HIGH_WATER + peer.MAX_BEHIND
    for _ in range(most // 60_000 + 1):
        connection.send_text(bytes(60_000))
    with pytest.raises(LinkLost, match="doesn't read what it asked for"):
        connection.send_text(b"pong")
    assert connection.closed
    assert deaf.queued <= most + 60_000


async def test_a_peer_that_reads_may_be_sent_any_amount(address):
    async def signal(_message):
        pass

    connection = webrtc.WebRtc(attempt=str(uuid.uuid4()), peer="ann", signal=signal)
    connection._channel = channel = Deaf()
    for _ in range(1_000):
        connection.send_text(bytes(60_000))
        channel.queued = 0
    connection.abandon("done")


class Speaking(Deaf):
    """A data channel whose messages a test makes."""

    def label(self):
        return "blocks"

    def state(self):
        return "State.Open"

    def set_buffered_amount_low_threshold(self, threshold):
        pass

    def on_buffered_amount_low(self, call):
        pass

    on_open = on_close = on_buffered_amount_low

    def on_message(self, call):
        self.say = call


async def test_what_a_tap_takes_isnt_received(address):
    async def signal(_message):
        pass

    connection = webrtc.WebRtc(attempt=str(uuid.uuid4()), peer="ann", signal=signal)
    channel, taken = Speaking(), []
    connection._take_channel(channel)
    connection.tap(lambda data: data[:1] == b"t" and taken.append(data) is None)
    await asyncio.to_thread(channel.say, b"taken", True)
    await asyncio.to_thread(channel.say, b"other", True)
    await asyncio.to_thread(channel.say, b"text", False)
    async with asyncio.timeout(60):
        assert await connection.receive() == seam.Arrived(b"other", True)
        assert await connection.receive() == seam.Arrived(b"text", False)
    assert taken == [b"taken"]
    connection.abandon("done")
    channel.say(b"too late", True)
    assert taken == [b"taken"]


async def test_an_address_that_is_gone_has_another_path_looked_for_at_once(ends, monkeypatch):
    await ends.open()
    offers = asyncio.Queue()

    def change(message):
        if isinstance(message, Offer):
            offers.put_nowait(message.restart)
        return message

    ends.change = change
    monkeypatch.setattr(webrtc, "WATCH_S", 0.01)
    monkeypatch.setattr(webrtc, "is_here", lambda _: False)
    ends.offerer._watching.cancel()
    ends.offerer._watch()
    assert ends.answerer._watching is None  # only who offered may offer again
    assert await asyncio.wait_for(offers.get(), 60) is True
    ends.offerer.send_text(b"still here")
    async with asyncio.timeout(60):
        assert (await ends.answerer.receive()).data == b"still here"


async def send_and_receive(ends, messages):
    async def send():
        for number in range(messages):
            await ends.offerer.send_binary(number.to_bytes(4, "big") + bytes(65_000))
        ends.offerer.send_text(b"a row of long messages ends with a short one")

    sending = asyncio.create_task(send())
    for number in range(messages):
        arrived = await ends.answerer.receive()
        assert arrived.data[:4] == number.to_bytes(4, "big")
    await sending
    return (await ends.offerer._live().get_stats()).sctp


@pytest.fixture
def slow_line(address):
    """100 Mbit/s over 40 ms, before which 1.5 MB may wait."""
    try:
        with long_line(Line(delay_s=0.02, rate=12.5e6, queue=1_500_000)):
            yield
    except NotPermitted as error:
        pytest.skip(str(error))


@pytest.mark.slow
async def test_what_waits_before_a_line_is_not_so_much_that_it_runs_over(
    slow_line, ends, monkeypatch
):
    limits = []
    look = Pace.look

    def noted(pace, now):
        look(pace, now)
        limits.append(pace.limit)

    monkeypatch.setattr(Pace, "look", noted)
    ends.change = over_line
    await ends.open(purpose="blocks")
    async with asyncio.timeout(60):
        stats = await send_and_receive(ends, 300)
    assert stats.packets_retransmitted < 0.02 * stats.packets_sent
    assert statistics.median(limits[len(limits) // 2 :]) < 2_000_000


async def test_near_peers_have_as_much_on_its_way_as_they_like(ends):
    await ends.open(purpose="blocks")
    async with asyncio.timeout(60):
        await send_and_receive(ends, 100)
    assert ends.offerer._pace.limit > seam.HIGH_WATER


async def test_after_a_while_without_a_path_nothing_is_known_of_the_line(ends):
    await ends.open(purpose="blocks")
    async with asyncio.timeout(30):
        await send_and_receive(ends, 10)
        assert not (await ends.answerer.receive()).binary
        known = ends.offerer._pace
        ends.offerer._state_changed("PeerConnectionState.Disconnected")
        assert ends.offerer._pace is known
        ends.offerer._state_changed("PeerConnectionState.Connected")
        assert ends.offerer._pace is not known
        await send_and_receive(ends, 10)


async def test_a_connection_that_crawls_is_ended(ends, monkeypatch):
    await ends.open(purpose="blocks")
    monkeypatch.setattr(ends.offerer._pace, "crawls", True)
    async with asyncio.timeout(60):
        await ends.offerer.send_binary(b"content")
        with pytest.raises(LinkLost, match="it crawls"):
            await ends.offerer.receive()
        assert (await ends.answerer.receive()).data == b"content"
        with pytest.raises(LinkLost):
            await ends.answerer.receive()


class Blind:
    """A connection of the library that has stopped to count, or never did."""

    def __init__(self, connection, counts):
        self._connection, self._counts = connection, counts

    def __getattr__(self, name):
        return getattr(self._connection, name)

    async def get_stats(self):
        if self._counts is None:
            raise RuntimeError("no counts")
        return self._counts


@pytest.mark.parametrize("counts", [None, SimpleNamespace(sctp=None)], ids=["error", "nothing"])
async def test_who_sends_is_not_held_where_nothing_is_counted(ends, counts):
    await ends.open(purpose="blocks")
    ends.offerer._connection = Blind(ends.offerer._connection, counts)
    async with asyncio.timeout(60):
        for _ in range(30):
            await ends.offerer.send_binary(bytes(60_000))
        ends.offerer.send_text(b"the end of the row")
        for _ in range(30):
            await ends.answerer.receive()
    assert await ends.offerer.packets() is None
