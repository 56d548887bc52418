"""What the portable library does otherwise; what it does as the fast one is in test_peer.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid

import pytest

from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import LinkLost, PeerUnreachable, ProtocolError
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.protocol.link import Describe, Description
from sleap_rtc.protocol.peering import MAX_CANDIDATES, Answer, Decline, Offer
from sleap_rtc.protocol.signaling import IceServer
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather
from sleap_rtc.transports import portable
from sleap_rtc.transports.link import Link
from sleap_rtc.transports.peer import ended
from sleap_rtc.transports.portable import PortableWebRtc

BOTH = pytest.mark.parametrize("shells", [("portable", "portable")], indirect=True)
FAST_DIALS = pytest.mark.parametrize("shells", [("fast", "portable")], indirect=True)
PORTABLE_DIALS = pytest.mark.parametrize("shells", [("portable", "fast")], indirect=True)
pytestmark = pytest.mark.webrtc


async def until_closed(connection) -> str:
    async with asyncio.timeout(60):
        await connection._gone.wait()
    assert connection.closed
    return connection._why


async def nobody(_message) -> None:
    pass


def alone(**given) -> PortableWebRtc:
    return PortableWebRtc(attempt=str(uuid.uuid4()), peer="eve", **({"signal": nobody} | given))


@FAST_DIALS
async def test_who_asks_for_another_path_is_told_that_there_is_none(ends):
    await ends.open()
    await ends.offerer._restart_ice()
    assert "can't look for another network path" in await until_closed(ends.answerer)
    assert "can't look for another network path" in await until_closed(ends.offerer)
    assert [m.code for m in ends.said if isinstance(m, Decline)] == ["no_restart"]


@PORTABLE_DIALS
async def test_silence_unsettles_and_then_ends_it(ends, monkeypatch):
    monkeypatch.setattr(portable, "TICK_S", 0.05)
    told = asyncio.Queue()
    ends.offerer.when_unsettled(told.put_nowait)
    await ends.open()
    async with asyncio.timeout(60):
        assert await told.get() is True
        ends.answerer.send_text(b"here I am")
        assert await told.get() is False
    assert "nothing came from it" in await until_closed(ends.offerer)


def the_next_packet(sctp):
    sctp._last_received_tsn += 1


def one_behind_a_lost_one(sctp):
    sctp._sack_misordered.add(sctp._last_received_tsn + 2)


@PORTABLE_DIALS
@pytest.mark.parametrize("arrive", [the_next_packet, one_behind_a_lost_one])
async def test_what_came_of_a_long_message_is_a_sign_of_life(ends, monkeypatch, arrive):
    monkeypatch.setattr(portable, "TICK_S", 0.05)
    told = asyncio.Queue()
    ends.offerer.when_unsettled(told.put_nowait)
    await ends.open()
    async with asyncio.timeout(60):
        assert await told.get() is True
        arrive(ends.offerer._connection.sctp)
        assert await told.get() is False
    assert "nothing came from it" in await until_closed(ends.offerer)


@PORTABLE_DIALS
async def test_a_cut_in_mid_link_is_lost_and_the_link_built_anew(rig, address, monkeypatch):
    monkeypatch.setattr(portable, "TICK_S", 0.1)
    rig.network = ImpairedNetwork(address, Weather())
    client, worker = rig.add("client"), rig.add("worker", accepts=True)

    async def describe(*_):
        return Description(worker=WorkerInfo(version="1"))

    worker.handler = describe
    down = asyncio.Event()
    link = Link(
        client.switchboard,
        room=rig.room,
        locate=lambda: worker.presence,
        name="worker",
        on_state=lambda state: down.set() if state == "down" else None,
    )
    async with link:
        await link.request(Describe(), within_s=60)
        rig.network.weather.cut = True
        await asyncio.wait_for(down.wait(), 60)
        rig.network.weather.cut = False
        assert isinstance(await link.request(Describe(), within_s=60), Description)


@BOTH
@pytest.mark.parametrize("text", [True, False])
async def test_a_message_longer_than_may_be_ends_it(ends, text):
    await ends.open()
    ends.offerer._channel.send("x" * (MAX_MESSAGE + 1) if text else bytes(MAX_MESSAGE + 1))
    assert "a message of 65537 bytes" in await until_closed(ends.answerer)


@BOTH
async def test_text_that_is_none_ends_it(ends, caplog):
    await ends.open()
    ends.offerer._channel.transport._data_channel_queue.append((ends.offerer._channel, 51, b"\xff"))
    ends.offerer.send_text(b"and on")
    await until_closed(ends.answerer)


@BOTH
async def test_a_second_channel_ends_it(ends):
    await ends.open()
    ends.offerer._connection.createDataChannel("another")
    assert "second channel" in await until_closed(ends.answerer)


@BOTH
async def test_more_than_the_window_allows_ends_it(ends, monkeypatch):
    monkeypatch.setattr(portable, "TICK_S", 0.02)
    await ends.open()
    ends.answerer._connection.sctp._advertised_rwnd = -MAX_MESSAGE - 1
    assert "sends more than it may" in await until_closed(ends.answerer)


@BOTH
async def test_a_peer_that_takes_next_to_nothing_is_lost(ends):
    await ends.open()
    ends.offerer._connection.sctp._remote_max_message_size = 10
    with pytest.raises(LinkLost, match="only supports messages up to 10 bytes"):
        ends.offerer.send_text(b"more than that")
    assert ends.offerer.closed


@BOTH
async def test_an_answer_out_of_place_is_refused(ends):
    await ends.open()
    answer = next(m for m in ends.said if isinstance(m, Answer))
    with pytest.raises(ProtocolError, match="bad description"):
        await ends.offerer.handle(answer)


MEDIA = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtpmap:0 PCMU/8000\r\n"


@BOTH
@pytest.mark.parametrize(
    "spoil",
    [
        lambda sdp: sdp + MEDIA,
        lambda sdp: sdp.replace("m=application", "m=audio"),
        lambda sdp: sdp.replace("a=sctp-port:5000", "a=sctp-port:99999"),
        lambda sdp: sdp.replace("a=sctp-port:5000\r\n", ""),
        lambda sdp: sdp + "m=\r\na=\r\n",
    ],
    ids=["media beside", "media instead", "odd port", "no port", "half a line"],
)
async def test_only_a_description_of_data_is_taken(ends, spoil):
    ends.spoil_offers(spoil)
    await ends.offerer.offer(session=ends.attempt, purpose="control")
    with pytest.raises(PeerUnreachable):
        await ends.answerer.opened(within_s=60)
    assert "bad description" in str(ends.errors[0])


@BOTH
async def test_candidates_in_a_description_count_as_others_do(ends):
    many = "".join(f"a=candidate:1 1 udp 1 10.77.0.9 {port} typ host\r\n" for port in range(9, 99))
    ends.spoil_offers(lambda sdp: f"{sdp}{many}a=end-of-candidates\r\n")
    await ends.open()
    remote = ends.answerer._connection.sctp.transport.transport.getRemoteCandidates()
    assert len([c for c in remote if c.type == "host"]) == MAX_CANDIDATES


async def test_no_server_is_asked_that_nobody_set(address):
    connection = alone()
    assert connection._connection._RTCPeerConnection__configuration.iceServers == []
    connection.abandon("over")
    await ended()


def test_servers_that_it_can_read_are_used_with_their_credentials():
    servers = [
        IceServer(urls=("stun:[::1]:3478", "turn:relay:3478?transport=tcp"), username="u"),
        IceServer(urls=("stun:stun.lab:3478",), username="", credential=""),
    ]
    found = [(s.urls, s.username) for s in portable._understood(servers)]
    assert found == [(["turn:relay:3478?transport=tcp"], "u"), (["stun:stun.lab:3478"], "")]


@pytest.mark.slow
async def test_a_silent_stun_server_delays_and_what_ends_meanwhile_leaves_nothing(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((address, 0))
        url = f"stun:{address}:{silent.getsockname()[1]}"
        said, begun = [], asyncio.Event()

        async def signal(message):
            said.append(message)
            begun.set()

        connection = alone(signal=signal, ice_servers=[IceServer(urls=(url,))])
        before = asyncio.all_tasks()
        offering = asyncio.create_task(connection.offer(session="s" * 36, purpose="control"))
        await asyncio.wait_for(begun.wait(), 60)
        await asyncio.to_thread(silent.recv, 100)
        connection.abandon("not wanted any more")
        offering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await offering
        async with asyncio.timeout(60):
            while asyncio.all_tasks() > before:
                await ended()
        assert [type(m) for m in said] == [Offer]
