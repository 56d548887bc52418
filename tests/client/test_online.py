"""Being online: names, lists and their ends, at a real server and over real connections."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.membership import Membership
from sleap_rtc.client import rooms
from sleap_rtc.client.online import Online
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import NotPermitted, NotTrusted, Offline, UnknownWorker, WorkerChanged
from sleap_rtc.protocol.link import Describe
from sleap_rtc.testing import netns
from sleap_rtc.transports.link import Link


@pytest.fixture
def web() -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")


def link(online: Online, name: str = "gpu-1") -> Link:
    (entry,) = online.store.rooms()
    return Link(
        online.switchboard,
        room=entry.room,
        locate=lambda: online.worker(entry.room, name),
        name=name,
    )


async def publish(online: Online, membership: Membership) -> None:
    signed = encode(membership.signed).decode()
    await online.signaling.put_membership(membership.room, signed)


# ── lists ────────────────────────────────────────────────────────────────────


async def test_a_list_reaches_everybody_who_is_online(lab):
    anna, ben = await lab.joined("anna"), await lab.joined("ben")
    newer = lab.write_list()
    async with anna.online(), ben.online(), lab.owner.online() as owner:
        await publish(owner, newer)
        for machine in (anna, ben):
            await machine.learns(newer)


async def test_whoever_acts_on_lists_is_told_of_a_newer_one(lab):
    anna = await lab.joined("anna")
    newer = lab.write_list()
    told: asyncio.Queue[Membership] = asyncio.Queue()
    async with (
        Online(anna.settings, lab.url, on_list=told.put_nowait) as online,
        lab.owner.online() as owner,
    ):
        await online.enter(anna.entry, name="gpu-1", kind="worker", worker=WorkerInfo())
        await publish(owner, newer)
        assert await asyncio.wait_for(told.get(), 60) == newer
        assert anna.store.membership(newer.room) == newer


async def test_a_list_reaches_whoever_comes_later(lab):
    anna = await lab.joined("anna")
    newer = lab.write_list()
    async with lab.owner.online() as owner:
        await publish(owner, newer)
    async with anna.online():
        await anna.learns(newer)


async def test_a_member_gives_the_server_a_list_that_it_lacks(lab):
    anna, ben = await lab.joined("anna"), await lab.joined("ben")
    newer = lab.write_list()
    anna.store.save_membership(newer)  # as a handshake with the owner would
    async with ben.online(), anna.online():
        await ben.learns(newer)


async def test_a_list_that_no_owner_signed_changes_nothing(lab):
    anna = await lab.joined("anna")
    newer = lab.write_list()
    broken = msgspec.structs.replace(
        newer.signed, signed=msgspec.structs.replace(newer.signed.signed, signature=bytes(64))
    )
    async with anna.online() as online:
        tending = online._tending
        with pytest.raises(NotTrusted):
            await tending.take_list(newer.room, encode(broken).decode())
        assert anna.store.membership(newer.room).number == 0
        assert await tending.take_list(newer.room, encode(newer.signed).decode()) == newer
        assert await tending.take_list(newer.room, encode(newer.signed).decode()) is None


@pytest.mark.webrtc
async def test_a_removed_client_is_cut_off_and_both_sides_know(lab, web):
    anna, worker = await lab.joined("anna"), await lab.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1"), anna.online() as online, lab.owner.online() as owner:
        async with link(online) as linked:
            await linked.request(Describe(), within_s=60)
            channel = await worker.channels.get()
            await publish(owner, lab.write_list(revoked=[anna]))
            await asyncio.wait_for(worker.ended.wait(), 60)
            assert isinstance(channel.ended_by, NotTrusted)
            with pytest.raises(NotPermitted):
                await linked.request(Describe(), within_s=60)
        assert isinstance(await asyncio.wait_for(anna.lost.get(), 60), NotPermitted)


@pytest.mark.webrtc
async def test_a_removed_worker_is_cut_off_by_its_clients(lab, web):
    anna, worker = await lab.joined("anna"), await lab.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1"), anna.online() as online, lab.owner.online() as owner:
        async with link(online) as linked:
            await linked.request(Describe(), within_s=60)
            newer = lab.write_list(revoked=[worker])
            await publish(owner, newer)
            await anna.learns(newer)
            with pytest.raises(NotPermitted):
                await linked.request(Describe(), within_s=60)
            await asyncio.wait_for(worker.ended.wait(), 60)
        assert isinstance(await asyncio.wait_for(worker.lost.get(), 60), NotPermitted)


@pytest.mark.webrtc
async def test_a_list_that_only_a_peer_knows_ends_other_links_too(lab, web):
    """The server keeps the news to itself; a client that has the list brings it."""
    anna, ben = await lab.joined("anna"), await lab.joined("ben")
    worker = await lab.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1"), anna.online() as one, link(one) as linked:
        await linked.request(Describe(), within_s=60)
        channel = await worker.channels.get()
        async with ben.online() as other:
            ben.store.save_membership(lab.write_list(revoked=[anna]))
            async with link(other) as theirs:
                await theirs.request(Describe(), within_s=60)
                await asyncio.wait_for(worker.ended.wait(), 60)
        assert isinstance(channel.ended_by, NotTrusted)


# ── certificates ─────────────────────────────────────────────────────────────


async def visit(machine, calendar, *, worker: str | None = None) -> None:
    async with machine.online(worker=worker, clock=calendar):
        pass


async def test_nobody_is_locked_out_while_an_owner_comes_by(month, calendar):
    """Months later, everybody's first certificates have long ended."""
    anna, worker = await month.joined("anna"), await month.joined("gpu-1", "worker")
    for machine, name in ((anna, None), (worker, "gpu-1")):
        await visit(machine, calendar, worker=name)
    for day in (20, 40, 60):
        calendar.day(day)
        await visit(month.owner, calendar)
        calendar.day(day + 10)
        await visit(anna, calendar)
        await visit(worker, calendar, worker="gpu-1")
    assert (anna.entry.role, worker.entry.role) == ("member", "worker")
    member = verify_chain(worker.entry.chain, room=worker.entry.room, now=calendar())
    assert (member.device, member.name, member.role) == (worker.device, "gpu-1", "worker")


async def test_a_member_that_was_away_is_renewed_when_an_owner_comes_by(month, calendar):
    anna = await month.joined("anna")
    await visit(anna, calendar)
    calendar.day(35)
    with pytest.raises(NotTrusted, match="ended on"):
        await visit(anna, calendar)
    await visit(month.owner, calendar)
    await visit(anna, calendar)


async def test_without_an_owner_certificates_end(month, calendar):
    anna, ben = await month.joined("anna"), await month.joined("ben")
    await visit(anna, calendar)
    calendar.day(20)
    async with ben.online(clock=calendar) as online:
        with pytest.raises(NotPermitted, match="Only owners"):
            await online.signaling.get_members(ben.entry.room, due=True)
        assert await online._tending.renew(ben.entry.room) == 0
    calendar.day(31)
    with pytest.raises(NotTrusted, match="ended on"):
        await visit(anna, calendar)


async def test_who_was_removed_is_not_renewed(month, calendar):
    anna, ben = await month.joined("anna"), await month.joined("ben")
    for machine in (anna, ben):
        await visit(machine, calendar)
    async with month.owner.online(clock=calendar) as online:
        await publish(online, month.write_list(revoked=[anna], keep=True))
    calendar.day(20)
    async with month.owner.online(clock=calendar) as online:
        (task,) = online._renewing
        assert await task == 1
    calendar.day(35)
    await visit(ben, calendar)
    with pytest.raises(NotTrusted):
        await visit(anna, calendar)


async def test_who_stays_online_is_renewed_there(month, calendar):
    """A worker's daemon runs for months; it enters again after the server was away."""
    worker = await month.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1", clock=calendar) as online:
        calendar.day(20)
        await visit(month.owner, calendar)
        before = worker.entry.chain
        await online._tending.renew(worker.entry.room)
        assert worker.entry.chain != before
        calendar.day(35)
        await online.enter(worker.entry, name="gpu-1", kind="worker", worker=WorkerInfo())


# ── names ────────────────────────────────────────────────────────────────────


@pytest.mark.webrtc
async def test_a_worker_that_was_set_up_anew_is_taken_when_told_so(lab, web):
    anna = await lab.joined("anna")
    first, second = await lab.joined("one", "worker"), await lab.joined("two", "worker")
    async with first.online(worker="gpu-1"), anna.online() as online, link(online) as linked:
        await linked.request(Describe(), within_s=60)
    async with second.online(worker="gpu-1"):
        async with anna.online() as online, link(online) as linked:
            with pytest.raises(WorkerChanged):
                await linked.request(Describe(), within_s=60)
        accepted = await rooms.accept_worker(anna.settings, anna.entry, "gpu-1")
        assert (accepted.before, accepted.device) == (first.device, second.device)
        async with anna.online() as online, link(online) as linked:
            await linked.request(Describe(), within_s=60)


async def test_a_worker_can_be_taken_before_it_was_met(lab):
    anna, worker = await lab.joined("anna"), await lab.joined("one", "worker")
    async with worker.online(worker="gpu-1"):
        accepted = await rooms.accept_worker(anna.settings, anna.entry, "gpu-1")
    assert (accepted.before, accepted.device) == (None, worker.device)
    with pytest.raises(UnknownWorker):
        await rooms.accept_worker(anna.settings, anna.entry, "gpu-2")


# ── offline ──────────────────────────────────────────────────────────────────


async def test_offline_nobody_is_asked(lab):
    anna = await lab.joined("anna")
    settings = msgspec.structs.replace(anna.settings, offline=True)
    with pytest.raises(Offline, match=r"is not asked: sleap-rtc works offline") as caught:
        async with Online(settings, lab.url):
            pytest.fail("it is online")
    assert "--offline" in caught.value.hint_text
