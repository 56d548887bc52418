"""Who a link is built with, and who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid

import msgspec
import pytest

from sleap_rtc.errors import (
    LinkLost,
    NetworkError,
    NotPermitted,
    NotTrusted,
    PeerUnreachable,
)
from sleap_rtc.protocol.link import (
    Describe,
    Description,
)
from sleap_rtc.protocol.peering import Answer, Offer
from sleap_rtc.transports import channel as channels
from sleap_rtc.transports import switchboard
from sleap_rtc.transports.link import Link

from .linking import ANY_PAIR, answers

pytestmark = [pytest.mark.webrtc]


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
    states = []
    async with Link(
        eve.switchboard,
        room=rig.room,
        locate=lambda: worker.presence,
        name="worker",
        on_state=states.append,
    ) as link:
        with pytest.raises(NotPermitted):
            await link.request(Describe(), within_s=60)
        assert states == ["closed"]  # nobody is told to wait for it
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
