"""The fast library's own ways; what all libraries do alike is in test_peer.py."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from sleap_rtc.errors import LinkLost
from sleap_rtc.protocol.peering import Offer
from sleap_rtc.transports import connection as seam
from sleap_rtc.transports import peer, webrtc

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
    async with asyncio.timeout(5):
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
    assert await asyncio.wait_for(offers.get(), 10) is True
    ends.offerer.send_text(b"still here")
    async with asyncio.timeout(10):
        assert (await ends.answerer.receive()).data == b"still here"
