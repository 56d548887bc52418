"""The conformance suite of WebRTC libraries: every pair of them does the same."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest

from sleap_rtc.errors import LinkLost, PeerUnreachable
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.peering import MAX_CANDIDATES, Answer, Candidate, Decline, Offer
from sleap_rtc.transports import peer as module
from sleap_rtc.transports import portable, webrtc
from sleap_rtc.transports.connection import CONTROL_HIGH_WATER, Arrived
from sleap_rtc.transports.peer import ended

PAIRS = [("fast", "fast"), ("fast", "portable"), ("portable", "fast"), ("portable", "portable")]
pytestmark = [
    pytest.mark.webrtc,
    pytest.mark.parametrize("shells", PAIRS, ids="-".join, indirect=True),
]


async def read(connection) -> Arrived:
    async with asyncio.timeout(60):
        return await connection.receive()


async def lost(connection) -> LinkLost:
    """Read to the end, once there is one."""
    async with asyncio.timeout(60):
        while not connection.closed:
            connection._wake.clear()
            await connection._wake.wait()
    try:
        while True:
            await read(connection)
    except LinkLost as error:
        return error


async def test_messages_arrive_whole_in_order_and_as_what_they_were(ends):
    await ends.open()
    sizes = (0, 1, 1200, MAX_MESSAGE - 1, MAX_MESSAGE)
    for one, other in ((ends.offerer, ends.answerer), (ends.answerer, ends.offerer)):
        sent = []
        for size in sizes:
            text, binary = ("é" * (size // 2)).encode(), os.urandom(size)
            one.send_text(text)
            await one.send_binary(binary)
            sent += [Arrived(text, False), Arrived(binary, True)]
        # A row of long ones, as content is, ends with a short one.
        one.send_text(b"end")
        sent.append(Arrived(b"end", False))
        assert [await read(other) for _ in sent] == sent


async def test_each_side_knows_both_certificates(ends):
    await ends.open()
    assert ends.offerer.local_fingerprint == ends.answerer.remote_fingerprint
    assert ends.offerer.remote_fingerprint == ends.answerer.local_fingerprint
    assert ends.offerer.local_fingerprint != ends.answerer.local_fingerprint
    assert len(ends.offerer.local_fingerprint) == len(ends.answerer.local_fingerprint) == 32


async def test_descriptions_name_one_certificate_and_candidates_follow(ends):
    await ends.open()
    descriptions = [m.sdp for m in ends.said if isinstance(m, Offer | Answer)]
    assert len(descriptions) == 2
    assert all(sdp.count("a=fingerprint:") == 1 for sdp in descriptions)
    assert not any("a=candidate:" in sdp for sdp in descriptions)
    assert any(isinstance(message, Candidate) for message in ends.said)


@pytest.mark.parametrize("closing", ["offerer", "answerer"])
async def test_what_was_sent_before_the_end_arrives(ends, closing, monkeypatch):
    monkeypatch.setattr(portable, "DRAIN_S", 60.0)
    for each in (portable, webrtc):  # a busy machine may take more than a second to take it
        monkeypatch.setattr(each, "GONE_WITHIN_S", 60.0)
    await ends.open()
    one = getattr(ends, closing)
    other = ends.answerer if one is ends.offerer else ends.offerer
    for _ in range(4):
        await one.send_binary(bytes(20_000))
    one.send_text(b"bye")
    await one.close()
    assert one.closed
    for _ in range(4):
        assert len((await read(other)).data) == 20_000
    assert (await read(other)).data == b"bye"
    await lost(other)
    assert other.closed
    for connection in (one, other):
        with pytest.raises(LinkLost):
            connection.send_text(b"late")
        with pytest.raises(LinkLost):
            await connection.send_binary(b"late")
        await connection.room()
        await connection.close()


async def test_an_end_at_once_is_noticed_by_the_other_side(ends):
    await ends.open()
    ends.offerer.abandon("as a test wants it")
    assert "as a test wants it" in str(await lost(ends.offerer))
    await lost(ends.answerer)


async def test_a_sender_of_content_waits_until_it_has_left(ends):
    await ends.open("control")
    most = 0
    for number in range(15):
        await ends.offerer.send_binary(number.to_bytes(4, "big") + bytes(60_000))
        most = max(most, ends.offerer._buffered())
    ends.offerer.send_text(b"end")
    assert most < CONTROL_HIGH_WATER + MAX_MESSAGE
    for number in range(15):
        assert (await read(ends.answerer)).data[:4] == number.to_bytes(4, "big")


async def test_content_connections_beside_the_first_queue_less(ends, shells):
    await ends.open()
    highs = [ends.offerer._most, ends.answerer._most]
    most = [ends.offerer.most_queued, ends.answerer.most_queued]
    # Both are of one process here; which of them came first depends.
    assert highs in ([most[0], most[1] // 4], [most[0] // 4, most[1]])
    await ends.close()
    assert not module._content


async def test_who_sends_more_than_is_read_is_cut_off(ends, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNREAD", 300_000)
    await ends.open()
    with contextlib.suppress(LinkLost):
        for _ in range(10):
            await ends.offerer.send_binary(bytes(30_000))
            ends.offerer.send_text(bytes(30_000))
    await lost(ends.offerer)
    assert "faster than it may" in str(await lost(ends.answerer))


async def test_empty_messages_are_no_way_around_that(ends, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNREAD", 20 * module.MESSAGE_COST)
    await ends.open()
    with contextlib.suppress(LinkLost):
        for _ in range(30):
            ends.offerer.send_text(b"")
    assert "faster than it may" in str(await lost(ends.answerer))


async def test_reading_makes_room_for_more(ends, monkeypatch):
    monkeypatch.setattr(module, "MAX_UNREAD", 10_000)
    await ends.open()
    for _ in range(20):
        ends.offerer.send_text(bytes(5_000))
        assert len((await read(ends.answerer)).data) == 5_000
    assert not ends.answerer.closed


async def test_a_declined_offer_ends_at_once(ends):
    ends.change = lambda message: None
    await ends.offerer.offer(session=ends.attempt, purpose="control")
    await ends.offerer.handle(Decline(attempt=ends.attempt, code="busy", message="too many"))
    with pytest.raises(PeerUnreachable, match="declined: too many"):
        await ends.offerer.opened(within_s=60)
    await ends.offerer.handle(Candidate(attempt=ends.attempt, candidate="late"))


async def test_nobody_answers(ends):
    ends.change = lambda message: None
    await ends.offerer.offer(session=ends.attempt, purpose="control")
    with pytest.raises(PeerUnreachable, match=r"no connection within 0\.1 s"):
        await ends.offerer.opened(within_s=0.1)
    assert ends.offerer.closed


def without_credentials(sdp):
    return "".join(line for line in sdp.splitlines(True) if not line.startswith("a=ice-"))


def with_another_certificate(sdp):
    before, _, after = sdp.partition("a=fingerprint:sha-256 ")
    return f"{before}a=fingerprint:sha-256 {':'.join(['AB'] * 32)}{after[95:]}"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sdp: "nonsense",
        lambda sdp: sdp.replace("a=fingerprint", "a=finger"),
        without_credentials,
        with_another_certificate,
    ],
    ids=["nonsense", "no certificate", "no credentials", "another certificate"],
)
async def test_a_bad_description_never_connects(ends, spoil):
    ends.spoil_offers(spoil)
    await ends.offerer.offer(session=ends.attempt, purpose="control")
    with pytest.raises(PeerUnreachable):
        await ends.answerer.opened(within_s=1)
    with pytest.raises(PeerUnreachable):
        await ends.offerer.opened(within_s=0.1)


async def test_candidates_may_come_first_and_be_odd_or_many(ends):
    late = []

    def change(message):
        if isinstance(message, Offer):
            late.append(message)
            return None
        return message

    ends.change = change
    await ends.offerer.offer(session=ends.attempt, purpose="control")
    odd = ("", "candidate:", "candidate:1 1 udp 1 10.77.0.1 99999999 typ host", "x" * 1024)
    for text in (*odd, "candidate:1 1 udp 1 somewhere.local 9 typ host", "candidate:1 2 3 4 5 6 7"):
        await ends.answerer.handle(Candidate(attempt=ends.attempt, candidate=text, mid="0", line=0))
    opening = asyncio.create_task(ends.answerer.handle(late[0]))
    await asyncio.gather(ends.offerer.opened(within_s=60), ends.answerer.opened(within_s=60))
    await opening
    for _ in range(2 * MAX_CANDIDATES):
        await ends.answerer.handle(Candidate(attempt=ends.attempt, candidate="x", mid="0", line=0))
    ends.offerer.send_text(b"still here")
    assert (await read(ends.answerer)).data == b"still here"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_behind(ends):
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    await ends.open()
    ends.offerer.send_text(b"x")
    await read(ends.answerer)
    files = open_files()
    await ends.offerer.close()
    ends.answerer.abandon("over")
    await ended()
    if ends.offerer.renews or ends.answerer.renews:
        return  # the fast library has threads, one set for all connections
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= tasks
    assert threading.active_count() <= threads
    assert open_files() < files


async def test_as_much_is_queued_as_leaves_within_a_moment(ends, monkeypatch):
    await ends.open()
    sender = ends.offerer
    sender._most, least = 8 * module.LEAST_QUEUED, sender._high
    marks = []
    monkeypatch.setattr(sender, "_mark", marks.append)
    sender._fit(2 * sender._most)
    assert (sender._high, marks) == (sender._most, [sender._most // 4])
    # What hardly changes isn't changed: that is a call across threads.
    sender._fit(0.9 * sender._most / module.QUEUED_S)
    assert sender._high == sender._most
    sender._fit(0.0)
    assert (sender._high, len(marks)) == (least, 2)
