"""The long line, by itself and with real packets on it."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import NotPermitted
from sleap_rtc.protocol.peering import Candidate
from sleap_rtc.testing import distance, netns
from sleap_rtc.testing.distance import FAR, NEAR, Held, Line, long_line, over_line


def packet(content: bytes = b"") -> bytes:
    return b"\x45" + bytes(11) + bytes([10, 78, 0, 1]) + bytes([10, 78, 0, 2]) + content


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 1400)), max_size=40),
    rate=st.none() | st.integers(10_000, 10**7),
    delay=st.floats(0, 1),
)
def test_nothing_is_early_changed_or_overtaken(arrivals, rate, delay):
    held = Held(Line(delay_s=delay, rate=rate, queue=10**9))
    now, sent = 0.0, []
    for number, (gap, size) in enumerate(arrivals):
        now += gap
        content = number.to_bytes(2, "big") + bytes(size)
        held.take(packet(content), now)
        sent.append((now, content))
    total = 0
    for begun, content in sent:
        total += len(packet(content))
        wait = held.wait_s(begun)
        assert wait is not None
        due = begun + wait
        arrived = next(held.due(due + 1e-9))
        assert arrived == packet(content)[:12] + packet()[16:20] + packet()[12:16] + content
        assert due >= begun + delay - 1e-9
        if rate is not None:
            assert due >= sent[0][0] + total / rate + delay - 1e-6
    assert held.wait_s(0) is None


def test_what_is_lost_queued_too_long_or_no_ipv4_never_arrives():
    for line, given_ in (
        (Line(loss=1.0), packet()),
        (Line(), b"\x60" + bytes(60)),
        (Line(), b"\x45"),
    ):
        held = Held(line)
        held.take(given_, 0.0)
        assert held.wait_s(0.0) is None
    held = Held(Line(rate=1000.0, queue=100))
    for _ in range(20):
        held.take(packet(bytes(80)), 0.0)
    assert 1 <= len(list(held.due(1e9))) <= 3


def test_jitter_reorders():
    held = Held(Line(jitter_s=1.0))
    for number in range(50):
        held.take(packet(bytes([number])), 0.0)
    order = [arrived[-1] for arrived in held.due(2.0)]
    assert sorted(order) == list(range(50)) != order


def test_of_candidates_those_are_told_that_are_on_the_line():
    def told(address, way="udp"):
        text = f"candidate:1 1 {way} 1 {address} 999 typ host generation 0"
        candidate = Candidate(attempt="0" * 36, candidate=text)
        changed = over_line(candidate)
        return None if changed is None else changed.candidate

    assert told(NEAR) == f"candidate:1 1 udp 1 {FAR} 999 typ host generation 0"
    assert told(netns.ADDRESS) is None
    assert told(NEAR, "tcp") is None
    last = Candidate(attempt="0" * 36, candidate="")
    assert over_line(last) == last


@pytest.fixture
def namespace():
    if netns.inside() is None:
        pytest.skip("a long line needs a namespace; `make test` makes one")


@pytest.mark.webrtc
async def test_tcp_over_it_takes_its_time(namespace):
    content = os.urandom(100_000)

    async def serve(reader, writer):
        assert writer.get_extra_info("peername")[0] == FAR
        writer.write(await reader.readexactly(len(content)))
        await writer.drain()
        writer.close()

    try:
        line = long_line(Line(delay_s=0.02, rate=2_000_000.0))
        line.__enter__()
    except NotPermitted as error:
        pytest.skip(error.message)
    try:
        server = await asyncio.start_server(serve, NEAR, 0)
        begun = time.monotonic()
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(FAR, server.sockets[0].getsockname()[1])
            # The line's first packet has waited for its process to start.
            connected = time.monotonic() - begun
            writer.write(content)
            begun = time.monotonic()
            assert await reader.readexactly(len(content)) == content
        took = time.monotonic() - begun
        assert connected >= 0.04
        # There and back at 2 MB/s, and the delay of both ways.
        assert took >= 2 * len(content) / 2_000_000 + 0.04
        writer.close()
        server.close()
        await server.wait_closed()
    finally:
        line.__exit__(None, None, None)
    with socket.socket() as gone, pytest.raises(OSError, match="assign requested address"):
        gone.bind((NEAR, 0))


def test_where_it_is_not_allowed_it_is_said(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(distance.fcntl, "ioctl", refuse)
    monkeypatch.setattr(distance.os, "open", lambda *_: os.dup(0))
    with pytest.raises(NotPermitted, match="long line can't be made here: Operation not"):
        long_line(Line()).__enter__()
    monkeypatch.setattr(distance.os, "open", refuse)
    with pytest.raises(NotPermitted, match="/dev/net/tun: Operation not permitted"):
        long_line(Line()).__enter__()
