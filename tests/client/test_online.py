"""Being online: names, lists and their ends, at a real server and over real connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.auth.certificates import verify_chain
from sleap_rtc.auth.membership import ListedMember, Membership, open_membership, sign_membership
from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client import rooms
from sleap_rtc.client.online import Online
from sleap_rtc.config import Settings, load
from sleap_rtc.domain.places import WorkerInfo
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import NotPermitted, NotTrusted, UnknownWorker, WorkerChanged
from sleap_rtc.protocol.link import Describe, Description
from sleap_rtc.server import app
from sleap_rtc.testing import netns
from sleap_rtc.testing.server import running_server, server_settings
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.link import Link


class Machine:
    """A device with a home of its own."""

    def __init__(self, home: Path, name: str) -> None:
        self.settings: Settings = load({"home": home, "name": name, "insecure": True})
        self.store = DeviceStore(home)
        self.channels: asyncio.Queue[Channel] = asyncio.Queue()
        self.lost: asyncio.Queue[Exception] = asyncio.Queue()
        self.applied: asyncio.Queue[Membership] = asyncio.Queue()
        self.ended = asyncio.Event()

    @property
    def entry(self) -> RoomEntry:
        (entry,) = self.store.rooms()
        return entry

    @property
    def device(self) -> str:
        return self.store.device_key().device

    @contextlib.asynccontextmanager
    async def online(
        self,
        *,
        worker: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> AsyncIterator[Online]:
        async with Online(
            self.settings,
            self.entry.server,
            accept=self._accept,
            on_lost=lambda lost: self.lost.put_nowait(lost.error),
            clock=clock,
        ) as online:
            self._watch_lists(online)
            await online.enter(
                self.entry,
                name=worker or self.settings.name,
                kind="client" if worker is None else "worker",
                worker=None if worker is None else WorkerInfo(),
            )
            yield online

    def _watch_lists(self, online: Online) -> None:
        apply = online.switchboard.apply

        def watched(membership: Membership) -> None:
            apply(membership)
            self.applied.put_nowait(membership)

        online.switchboard.apply = watched

    async def learns(self, newer: Membership) -> None:
        """Wait until a list has taken effect here; it is kept then."""
        async with asyncio.timeout(10):
            assert await self.applied.get() == newer
        assert self.store.membership(newer.room) == newer

    async def _accept(self, connection, proven) -> None:
        async def describe(_channel, body, _request):
            assert isinstance(body, Describe)
            return Description(worker=WorkerInfo())

        channel = Channel(connection, proven, handler=describe)
        self.channels.put_nowait(channel)
        await channel.run()
        self.ended.set()


class Lab:
    """A server, a room, its owner, and whoever was invited."""

    def __init__(self, root: Path, url: str, code: str) -> None:
        self.root, self.url, self.code = root, url, code
        self.owner = Machine(root / "owner", "laptop")

    async def begin(self) -> None:
        await rooms.login(self.owner.settings, self.url, code=self.code)
        await rooms.create_room(self.owner.settings, "lab", server=self.url)

    async def joined(self, name: str, role: str = "member") -> Machine:
        machine = Machine(self.root / name, name)
        link = rooms.invite(self.owner.settings, "lab", role=role)
        await rooms.join(machine.settings, link)
        return machine

    def write_list(self, *, revoked=(), roles=None, keep=False) -> Membership:
        """The owner's next list; kept by nobody unless by the owner itself."""
        room = self.owner.entry.room
        signed = sign_membership(
            self.owner.store.device_key(),
            self.owner.entry.chain,
            self.owner.store.membership(room),
            members=[
                ListedMember(device=machine.device, name="listed", role=role)
                for machine, role in (roles or {}).items()
            ],
            revoked=[machine.device for machine in revoked],
            now=datetime.now(UTC),
        )
        made = open_membership(signed, room=room)
        if keep:
            self.owner.store.save_membership(made)
        return made


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running_server(server_settings(tmp_path / "data")) as server:
        made = Lab(tmp_path, server.address.url, server.info.setup_code)
        await made.begin()
        yield made


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
            await linked.request(Describe(), within_s=15)
            channel = await worker.channels.get()
            await publish(owner, lab.write_list(revoked=[anna]))
            await asyncio.wait_for(worker.ended.wait(), 10)
            assert isinstance(channel.ended_by, NotTrusted)
            with pytest.raises(NotPermitted):
                await linked.request(Describe(), within_s=5)
        assert isinstance(await asyncio.wait_for(anna.lost.get(), 5), NotPermitted)


@pytest.mark.webrtc
async def test_a_removed_worker_is_cut_off_by_its_clients(lab, web):
    anna, worker = await lab.joined("anna"), await lab.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1"), anna.online() as online, lab.owner.online() as owner:
        async with link(online) as linked:
            await linked.request(Describe(), within_s=15)
            newer = lab.write_list(revoked=[worker])
            await publish(owner, newer)
            await anna.learns(newer)
            with pytest.raises(NotPermitted):
                await linked.request(Describe(), within_s=5)
            await asyncio.wait_for(worker.ended.wait(), 10)
        assert isinstance(await asyncio.wait_for(worker.lost.get(), 5), NotPermitted)


@pytest.mark.webrtc
async def test_a_list_that_only_a_peer_knows_ends_other_links_too(lab, web):
    """The server keeps the news to itself; a client that has the list brings it."""
    anna, ben = await lab.joined("anna"), await lab.joined("ben")
    worker = await lab.joined("gpu-1", "worker")
    async with worker.online(worker="gpu-1"), anna.online() as one, link(one) as linked:
        await linked.request(Describe(), within_s=15)
        channel = await worker.channels.get()
        async with ben.online() as other:
            ben.store.save_membership(lab.write_list(revoked=[anna]))
            async with link(other) as theirs:
                await theirs.request(Describe(), within_s=15)
                await asyncio.wait_for(worker.ended.wait(), 10)
        assert isinstance(channel.ended_by, NotTrusted)


# ── certificates ─────────────────────────────────────────────────────────────


class Calendar:
    """The clock of everybody, turned by the test."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def day(self, number: int) -> None:
        self._ahead = timedelta(days=number)


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    made = Calendar()
    monkeypatch.setattr(app, "_now", made)
    return made


@pytest.fixture
async def month(tmp_path: Path, calendar: Calendar) -> AsyncIterator[Lab]:
    """A lab whose server goes by the calendar."""
    async with running_server(server_settings(tmp_path / "data")) as server:
        made = Lab(tmp_path, server.address.url, server.info.setup_code)
        await made.begin()
        yield made


async def visit(machine: Machine, calendar: Calendar, *, worker: str | None = None) -> None:
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
        await linked.request(Describe(), within_s=15)
    async with second.online(worker="gpu-1"):
        async with anna.online() as online, link(online) as linked:
            with pytest.raises(WorkerChanged):
                await linked.request(Describe(), within_s=15)
        accepted = await rooms.accept_worker(anna.settings, anna.entry, "gpu-1")
        assert (accepted.before, accepted.device) == (first.device, second.device)
        async with anna.online() as online, link(online) as linked:
            await linked.request(Describe(), within_s=15)


async def test_a_worker_can_be_taken_before_it_was_met(lab):
    anna, worker = await lab.joined("anna"), await lab.joined("one", "worker")
    async with worker.online(worker="gpu-1"):
        accepted = await rooms.accept_worker(anna.settings, anna.entry, "gpu-1")
    assert (accepted.before, accepted.device) == (None, worker.device)
    with pytest.raises(UnknownWorker):
        await rooms.accept_worker(anna.settings, anna.entry, "gpu-2")
