"""Who may connect, how often, and until when: on real WebRTC connections."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime

import pytest

from sleap_rtc.auth import issue
from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.membership import ListedMember, Membership, open_membership, sign_membership
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.errors import NotPermitted, NotTrusted, PeerUnreachable, WorkerChanged
from sleap_rtc.protocol.link import Describe, Description
from sleap_rtc.protocol.peering import Candidate, Decline, Offer, peering
from sleap_rtc.protocol.signaling import Relayed
from sleap_rtc.transports import switchboard as module
from sleap_rtc.transports.link import Link

pytestmark = [pytest.mark.webrtc]


async def describe(_channel, body, _request):
    assert isinstance(body, Describe)
    return Description(worker=WorkerInfo(version="1"))


class Lab:
    """A client linked to a worker, and an owner who writes lists."""

    def __init__(self, rig):
        self.rig = rig
        self.owner = SigningKey.generate()
        self.client = rig.add("client", trust=rig.granted("client", "member"))
        self.worker = rig.add("worker", trust=rig.granted("worker", "worker"), accepts=True)
        self.worker.handler = describe
        self.number = 0

    def link(self, **changes):
        given = {"locate": lambda: self.worker.presence, "name": "worker"}
        return Link(self.client.switchboard, room=self.rig.room, **(given | changes))

    def newer(self, *, revoked=(), roles=None) -> Membership:
        now = datetime.now(UTC)
        chain = issue.make_room(self.rig.room_key, self.owner.device, name="owner", now=now)
        current = Membership(room=self.rig.room, number=self.number)
        self.number += 1
        listed = [
            ListedMember(device=device.trust.key.device, name=device.name, role=role)
            for device, role in (roles or {}).items()
        ]
        signed = sign_membership(
            self.owner,
            chain,
            current,
            members=listed,
            revoked=[device.trust.key.device for device in revoked],
            now=now,
        )
        return open_membership(signed, room=self.rig.room)


@pytest.fixture
def lab(rig):
    return Lab(rig)


def tell(device, membership):
    """What the shell does with a newer list: keep it, then let it take effect."""
    device.trust.save_membership(membership)
    device.switchboard.apply(membership)


async def linked(link, lab):
    assert isinstance(await link.request(Describe(), within_s=60), Description)
    return await asyncio.wait_for(lab.worker.arrivals.get(), 60)


# ── lists ────────────────────────────────────────────────────────────────────


async def test_a_removed_client_is_cut_off_by_the_worker_and_told_why(lab):
    async with lab.link() as link:
        channel = await linked(link, lab)
        tell(lab.worker, lab.newer(revoked=[lab.client]))
        async with asyncio.timeout(60):
            await lab.worker.ended[channel].wait()
        assert isinstance(channel.ended_by, NotTrusted)
        with pytest.raises(NotPermitted, match=r"refused: client .* was removed from room"):
            await link.request(Describe(), within_s=60)


async def test_a_removed_worker_is_cut_off_by_the_client_and_not_dialled_again(lab):
    offers = []
    async with lab.link() as link:
        channel = await linked(link, lab)
        lab.rig.change = lambda message: offers.append(message) or message
        tell(lab.client, lab.newer(revoked=[lab.worker]))
        with pytest.raises(NotTrusted, match="was removed from room"):
            await link.request(Describe(), within_s=60)
        async with asyncio.timeout(60):
            await lab.worker.ended[channel].wait()
        assert not any(isinstance(message, Offer) for message in offers)


async def test_requests_of_a_removed_client_are_not_worked_on_any_more(lab):
    asked = []

    async def count(channel, body, request):
        asked.append(request)
        return await describe(channel, body, request)

    lab.worker.handler = count
    async with lab.link() as link:
        await linked(link, lab)
        tell(lab.worker, lab.newer(revoked=[lab.client]))
        with pytest.raises(NotPermitted):
            await link.request(Describe(), within_s=60)
    assert len(asked) == 1


async def test_another_role_takes_effect_with_a_new_connection(lab):
    states = []
    async with lab.link(on_state=states.append) as link:
        channel = await linked(link, lab)
        assert channel.proven.peer.role == "member"
        tell(lab.worker, lab.newer(roles={lab.client: "viewer"}))
        again = await asyncio.wait_for(lab.worker.arrivals.get(), 60)
        assert again.proven.peer.role == "viewer"
        await link.request(Describe(), within_s=60)
    assert states[:3] == ["up", "down", "up"]


async def test_a_list_that_changes_nothing_for_a_peer_leaves_it_alone(lab):
    stranger = lab.rig.add("stranger")
    async with lab.link() as link:
        channel = await linked(link, lab)
        for device in (lab.client, lab.worker):
            tell(device, lab.newer(revoked=[stranger]))
        await link.request(Describe(), within_s=60)
        assert channel.open


async def test_an_older_list_is_not_applied_again(lab):
    async with lab.link() as link:
        channel = await linked(link, lab)
        removal, pardon = lab.newer(revoked=[lab.client]), lab.newer()
        lab.worker.switchboard.apply(pardon)
        lab.worker.switchboard.apply(removal)
        await link.request(Describe(), within_s=60)
        assert channel.open


async def test_a_list_that_comes_during_the_handshake_counts(lab, monkeypatch):
    authenticate = module.authenticate

    async def late(*arguments, side, **options):
        proven = await authenticate(*arguments, side=side, **options)
        if side == "answerer":
            lab.worker.switchboard.apply(lab.newer(revoked=[lab.client]))
        return proven

    monkeypatch.setattr(module, "authenticate", late)
    async with lab.link() as link:
        with pytest.raises((NotPermitted, PeerUnreachable)):
            await link.request(Describe(), within_s=3)
    assert lab.worker.channels == []


async def test_leaving_a_room_ends_its_links(lab):
    async with lab.link() as link:
        channel = await linked(link, lab)
        error = NotPermitted(message="This device was removed from room lab.")
        lab.client.switchboard.leave(lab.rig.room, error)
        with pytest.raises(NotPermitted, match="removed from room lab"):
            await link.request(Describe(), within_s=60)
        async with asyncio.timeout(60):
            await lab.worker.ended[channel].wait()


# ── names ────────────────────────────────────────────────────────────────────


async def test_a_server_that_names_another_member_is_noticed_at_once(lab):
    other = lab.rig.add("other", trust=lab.rig.granted("other", "worker"), accepts=True)
    async with lab.link(locate=lambda: other.presence) as link:
        with pytest.raises(NotTrusted, match="as the worker worker, and it calls itself other"):
            await link.request(Describe(), within_s=60)
    assert lab.client.trust.workers == {}


async def test_a_member_that_lies_together_with_the_server_is_noticed_the_second_time(lab):
    async with lab.link() as link:
        await linked(link, lab)
    assert lab.client.trust.workers == {"worker": lab.worker.trust.key.device}
    liar = lab.rig.add("liar", trust=lab.rig.granted("liar", "worker"), accepts=True)
    liar.trust.name = "worker"
    async with lab.link(locate=lambda: liar.presence) as link:
        with pytest.raises(WorkerChanged, match="Worker 'worker' is another device"):
            await link.request(Describe(), within_s=60)
    assert liar.channels == []


# ── how many ─────────────────────────────────────────────────────────────────


def call(lab, sender, *, device):
    """An offer as the server passes it on, from a connection of this name."""
    offer = Offer(
        attempt=str(uuid.uuid4()), session=str(uuid.uuid4()), purpose="control", sdp="v=0\r\n"
    )
    lab.worker.switchboard.handle(
        Relayed(
            room=lab.rig.room,
            sender=sender,
            device=device,
            payload=peering.encode(offer).decode(),
        )
    )
    return offer.attempt


class Calls:
    """What a device is told that calls from many connections to the server."""

    def __init__(self, lab, monkeypatch):
        self.declined = {}
        self.device = lab.client.trust.key.device

        async def relay(_room, to, payload):
            message = peering.decode(payload, peer="test")
            if isinstance(message, Decline):
                self.declined[to] = message.code

        async def wait(*_, **__):
            await asyncio.Event().wait()

        monkeypatch.setattr(lab.worker, "relay", relay)
        monkeypatch.setattr(module.Peer, "handle", wait)


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_attempts_are_counted_by_device_and_not_by_connection(lab, monkeypatch):
    monkeypatch.setattr(module, "MAX_ATTEMPTS_OF_ONE", 3)
    calls = Calls(lab, monkeypatch)
    for number in range(4):
        call(lab, f"c{number}", device=calls.device)
    call(lab, "other", device=lab.rig.add("other").trust.key.device)
    await settle()
    assert calls.declined == {"c3": "busy"}


async def test_attempts_are_limited_in_the_long_run_too(lab, monkeypatch):
    monkeypatch.setattr(lab.worker.switchboard, "_clock", lambda: now)
    calls = Calls(lab, monkeypatch)
    now = 100.0
    for number in range(module.STARTS_AT_ONCE + 1):
        attempt = call(lab, f"c{number}", device=calls.device)
        with contextlib.suppress(KeyError):
            lab.worker.switchboard._attempts[attempt].connection.abandon("refused")
    await settle()
    assert calls.declined == {f"c{module.STARTS_AT_ONCE}": "busy"}
    now += 1 / module.STARTS_PER_S
    call(lab, "later", device=calls.device)
    await settle()
    assert "later" not in calls.declined


async def test_what_a_stranger_relays_about_others_attempts_is_ignored(lab):
    async with lab.link() as link:
        await linked(link, lab)
        (attempt,) = lab.worker.switchboard._attempts
        decline = Decline(attempt=attempt, code="busy")
        lab.worker.switchboard.handle(
            Relayed(
                room=lab.rig.room,
                sender="stranger",
                device=lab.client.trust.key.device,
                payload=peering.encode(decline).decode(),
            )
        )
        await link.request(Describe(), within_s=60)


async def test_a_peer_that_signs_in_anew_goes_on_with_what_it_has_open(lab):
    """A laptop that comes to another network has another connection to the server there."""
    said = []
    async with lab.link() as link:
        await linked(link, lab)
        ((id_, attempt),) = lab.worker.switchboard._attempts.items()

        async def handle(message):
            said.append(message)
            await attempt.connection._signal(message)

        attempt.connection.handle = handle
        relayed_to = []

        async def relay(room, to, payload):
            relayed_to.append(to)

        lab.worker.relay = relay
        lab.worker.switchboard.handle(
            Relayed(
                room=lab.rig.room,
                sender="laptop-again",
                device=lab.client.trust.key.device,
                payload=peering.encode(Candidate(attempt=id_, candidate="x")).decode(),
            )
        )
        await settle()
        assert [type(message) for message in said] == [Candidate]
        assert relayed_to == ["laptop-again"]


async def test_what_is_no_message_is_only_logged(lab):
    presence = lab.client.presence
    for payload in ("", "{}", '{"type":"offer"}', "[" * 1000):
        lab.worker.switchboard.handle(
            Relayed(
                room=lab.rig.room,
                sender=presence.connection,
                device=presence.device,
                payload=payload,
            )
        )
    assert lab.worker.switchboard._attempts == {}
