"""The fast library's own ways; what all libraries do alike is in test_peer.py."""

from __future__ import annotations

import uuid

import pytest

from sleap_rtc.errors import LinkLost
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
