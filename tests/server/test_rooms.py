"""Presence: what each connection has been told is what is so, whatever happens in between."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sleap_rtc.auth.certificates import Member
from sleap_rtc.auth.membership import Membership
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import DeviceKind, Gpu, Hardware, Presence, WorkerInfo
from sleap_rtc.errors import Conflict, NotFound, NotPermitted, SleapRtcError, UsageError
from sleap_rtc.protocol.signaling import (
    Absent,
    Entered,
    MembershipNews,
    Present,
    Relayed,
    from_server,
)
from sleap_rtc.server import rooms as module
from sleap_rtc.server.rooms import Rooms, Tell, Visitor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOM, OTHER = RoomId("a" * 32), RoomId("b" * 32)
LARGE = WorkerInfo(engines={"x": "y" * 12_000})


def visitor(connection: str, *, device: str = "", instance: str = "") -> Visitor:
    key = (device or connection).encode().hex().rjust(64, "0")
    return Visitor(connection=connection, device=DeviceId(key), instance=instance)


def member(who: Visitor, room: RoomId = ROOM, **changes: Any) -> Member:
    given: dict[str, Any] = {"name": "box", "role": "worker", "expires": NOON}
    return Member(room=room, device=who.device, **(given | changes))


def without(*devices: str, room: RoomId = ROOM, **changes: Any) -> Membership:
    gone = frozenset(visitor("", device=device).device for device in devices)
    return Membership(room=room, number=1, revoked=gone, **changes)


def presence(
    who: Visitor,
    room: RoomId = ROOM,
    *,
    name: str = "",
    kind: DeviceKind = "client",
    worker: WorkerInfo | None = None,
) -> Presence:
    return Presence(
        device=who.device,
        connection=who.connection,
        room=room,
        name=name or who.connection,
        kind=kind,
        worker=worker,
    )


def enter(rooms: Rooms, connection: str, room: RoomId = ROOM, **changes: Any) -> tuple[Tell, ...]:
    who = visitor(
        connection, device=changes.pop("device", ""), instance=changes.pop("instance", "")
    )
    proven = changes.pop("proven", {})
    return rooms.enter(
        who, presence(who, room, **changes), member=member(who, room, **proven), request=1
    )


def test_who_enters_learns_of_the_others_and_they_of_it() -> None:
    rooms = Rooms()
    assert enter(rooms, "a") == (Tell(to=("a",), message=Entered(id=1)),)
    first, second = enter(rooms, "b", name="bee")
    assert first.to == ("b",)
    assert isinstance(first.message, Entered)
    assert [p.connection for p in first.message.present] == ["a"]
    assert second.to == ("a",)
    assert isinstance(second.message, Present)
    assert second.message.presence.name == "bee"


def test_leaving_and_departing_are_told_once() -> None:
    rooms = Rooms()
    for connection in ("a", "b"):
        enter(rooms, connection)
        enter(rooms, connection, OTHER)
    assert rooms.leave("a", ROOM) == (Tell(to=("b",), message=Absent(room=ROOM, connection="a")),)
    assert rooms.leave("a", ROOM) == ()
    assert rooms.depart("a") == (Tell(to=("b",), message=Absent(room=OTHER, connection="a")),)
    assert rooms.depart("a") == ()
    assert rooms.counts() == (2, 2)
    rooms.depart("b")
    assert rooms.counts() == (0, 0)


@pytest.mark.parametrize("name", ["gpu", "GPU"])
def test_a_second_worker_of_a_name_is_refused_with_both_named(name: str) -> None:
    rooms = Rooms()
    enter(rooms, "a", kind="worker", name="gpu", device="one")
    with pytest.raises(Conflict) as caught:
        enter(rooms, "b", kind="worker", name=name, device="two")
    message = caught.value.message
    assert visitor("", device="one").device[:12] in message
    assert visitor("", device="two").device[:12] in message
    assert "--name" in caught.value.hint_text
    with pytest.raises(Conflict, match="another process of the same device"):
        enter(rooms, "c", kind="worker", name="gpu", device="one")
    # Clients, other rooms and later times are free to use it.
    enter(rooms, "d", name="gpu")
    enter(rooms, "b", OTHER, kind="worker", name="gpu", device="two")
    rooms.depart("a")
    enter(rooms, "b", kind="worker", name="gpu", device="two")


def test_a_process_that_reconnects_takes_its_own_place() -> None:
    rooms = Rooms()
    enter(rooms, "watcher")
    enter(rooms, "old", kind="worker", name="gpu", device="one", instance="p1")
    told = enter(rooms, "new", kind="worker", name="gpu", device="one", instance="p1")
    assert isinstance(told[0].message, Entered)
    assert [type(tell.message) for tell in told[1:]] == [Absent, Present]
    assert [p.connection for p in rooms.online(ROOM)] == ["watcher", "new"]
    with pytest.raises(Conflict):
        enter(rooms, "x", kind="worker", name="gpu", device="two", instance="p1")
    with pytest.raises(Conflict):
        enter(rooms, "x", kind="worker", name="gpu", device="one", instance="p2")
    with pytest.raises(Conflict):
        enter(rooms, "x", kind="worker", name="gpu", device="one")


def test_processes_that_say_nothing_are_not_the_same() -> None:
    rooms = Rooms()
    enter(rooms, "a", kind="worker", name="gpu", device="one")
    with pytest.raises(Conflict):
        enter(rooms, "b", kind="worker", name="gpu", device="one")


def test_a_refused_entry_changes_nothing() -> None:
    rooms = Rooms()
    enter(rooms, "a", kind="worker", name="gpu")
    before = rooms.online(ROOM)
    with pytest.raises(Conflict):
        enter(rooms, "b", kind="worker", name="gpu")
    with pytest.raises(NotFound):
        rooms.presence("b", ROOM)
    assert rooms.online(ROOM) == before
    assert rooms.counts() == (1, 1)


def test_relay_needs_a_common_room() -> None:
    rooms = Rooms()
    enter(rooms, "a")
    enter(rooms, "b")
    enter(rooms, "c", OTHER)
    tell = rooms.relay("a", ROOM, "b", "hello")
    assert tell.to == ("b",)
    assert isinstance(tell.message, Relayed)
    assert (tell.message.sender, tell.message.payload) == ("a", "hello")
    for sender, room, to in (
        ("a", ROOM, "c"),
        ("a", OTHER, "c"),
        ("c", ROOM, "a"),
        ("a", ROOM, "x"),
        ("x", ROOM, "a"),
    ):
        with pytest.raises(NotFound, match="not online"):
            rooms.relay(sender, room, to, "hello")


def test_only_workers_update_and_within_bounds() -> None:
    rooms = Rooms()
    enter(rooms, "a")
    enter(rooms, "w", kind="worker")
    info = WorkerInfo(hardware=Hardware(cpus=4, gpus=(Gpu(name="A100", memory=2**36),)), jobs=2)
    (tell,) = rooms.update("w", ROOM, info)
    assert tell.to == ("a",)
    assert rooms.presence("w", ROOM).worker == info
    with pytest.raises(UsageError, match="Only a worker"):
        rooms.update("a", ROOM, info)
    with pytest.raises(UsageError, match="16384"):
        rooms.update("w", ROOM, WorkerInfo(unknown={"x": "y" * 20_000}))
    with pytest.raises(UsageError, match="16384"):
        enter(rooms, "v", kind="worker", worker=WorkerInfo(engines={"x": "y" * 20_000}))
    with pytest.raises(NotFound):
        rooms.update("x", ROOM, info)


def test_removed_devices_are_put_out_and_told() -> None:
    rooms = Rooms()
    for connection in ("a", "b", "c"):
        enter(rooms, connection)
    enter(rooms, "b", OTHER)
    tells = rooms.evict(without("b"))
    gone = Absent(room=ROOM, connection="b")
    assert tells == (Tell(to=("b",), message=gone), Tell(to=("a", "c"), message=gone))
    assert [p.connection for p in rooms.online(OTHER)] == ["b"]
    assert rooms.evict(without("b")) == ()


def test_whoever_came_by_a_removed_key_is_put_out_too() -> None:
    rooms = Rooms()
    key = visitor("invite").device
    enter(rooms, "a", proven={"through": (key,)})
    enter(rooms, "b")
    assert [tell.to for tell in rooms.evict(without("invite"))] == [("a",), ("b",)]
    assert [p.connection for p in rooms.online(ROOM)] == ["b"]


def test_a_worker_that_became_a_viewer_is_put_out() -> None:
    rooms = Rooms()
    for connection, kind in (("worker", "worker"), ("client", "client")):
        enter(rooms, connection, kind=kind)
    roles = {visitor(who).device: "viewer" for who in ("worker", "client")}
    rooms.evict(without(roles=roles))
    assert [p.connection for p in rooms.online(ROOM)] == ["client"]


def test_something_is_told_to_all_but_one() -> None:
    rooms = Rooms()
    for connection in ("a", "b", "c"):
        enter(rooms, connection)
    news = MembershipNews(room=ROOM, signed="{}")
    assert rooms.announce(ROOM, news, but="b") == (Tell(to=("a", "c"), message=news),)
    assert rooms.announce(OTHER, news, but="b") == ()


def test_a_large_room_is_told_in_messages_that_fit() -> None:
    rooms = Rooms()
    for number in range(150):
        enter(rooms, f"c{number}")
    told = enter(rooms, "me")
    assert isinstance(told[0].message, Entered)
    assert len(told[0].message.present) == 100
    assert sum(tell.to == ("me",) for tell in told) == 51
    for tell in told:
        from_server.encode(tell.message)


def test_wordy_workers_are_told_in_messages_that_fit() -> None:
    rooms = Rooms()
    for number in range(9):
        enter(rooms, f"w{number}", kind="worker", worker=LARGE)
    told = enter(rooms, "me")
    for tell in told:
        from_server.encode(tell.message)
    seen = list(told[0].message.present) if isinstance(told[0].message, Entered) else []
    seen += [
        t.message.presence for t in told[1:] if isinstance(t.message, Present) and t.to == ("me",)
    ]
    assert {p.connection for p in seen} == {f"w{number}" for number in range(9)}


def test_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROOMS", 2)
    monkeypatch.setattr(module, "MAX_ONLINE", 2)
    rooms = Rooms()
    for letter in "ab":
        enter(rooms, "me", RoomId(letter * 32))
    with pytest.raises(NotPermitted, match="2 rooms"):
        enter(rooms, "me", RoomId("c" * 32))
    enter(rooms, "me", ROOM, name="again")
    enter(rooms, "x", ROOM)
    with pytest.raises(NotPermitted, match="2 devices"):
        enter(rooms, "y", ROOM)


CONNECTIONS = st.sampled_from([f"c{n}" for n in range(5)])
ROOMS = st.sampled_from([ROOM, OTHER])
NAMES = st.sampled_from(["gpu", "GPU", "cpu"])


class PresenceMachine(RuleBasedStateMachine):
    """Each connection keeps what it was told; that must be what :class:`Rooms` says."""

    @initialize()
    def begin(self) -> None:
        self.rooms = Rooms()
        self.seen: dict[tuple[str, RoomId], dict[str, Presence]] = {}

    def deliver(self, tells: tuple[Tell, ...], entering: tuple[str, RoomId] | None = None) -> None:
        for tell in tells:
            assert len(set(tell.to)) == len(tell.to)
            for to in tell.to:
                match tell.message:
                    case Entered(present=present):
                        assert entering is not None
                        self.seen[entering] = {p.connection: p for p in present}
                    case Present(presence=p):
                        assert p.connection != to
                        self.seen[to, p.room][p.connection] = p
                    case Absent(room=room, connection=connection):
                        if connection == to:
                            self.seen.pop((to, room))
                        else:
                            del self.seen[to, room][connection]

    @rule(
        connection=CONNECTIONS,
        room=ROOMS,
        name=NAMES,
        kind=st.sampled_from(["client", "worker"]),
        process=st.tuples(st.sampled_from(["d1", "d2"]), st.sampled_from(["", "p"])),
    )
    def enter(
        self,
        connection: str,
        room: RoomId,
        name: str,
        kind: DeviceKind,
        process: tuple[str, str],
    ) -> None:
        who = visitor(connection, device=process[0], instance=process[1])
        try:
            tells = self.rooms.enter(
                who,
                presence(who, room, name=name, kind=kind),
                member=member(who, room),
                request=1,
            )
        except Conflict:
            return
        # One whose place was taken is not told: its connection is dead.
        online = {p.connection for p in self.rooms.online(room)}
        for key in [k for k in self.seen if k[1] == room and k[0] not in online]:
            del self.seen[key]
        self.deliver(tells, (connection, room))

    @rule(connection=CONNECTIONS, room=ROOMS)
    def leave(self, connection: str, room: RoomId) -> None:
        self.seen.pop((connection, room), None)
        self.deliver(self.rooms.leave(connection, room))

    @rule(connection=CONNECTIONS)
    def depart(self, connection: str) -> None:
        for room in (ROOM, OTHER):
            self.seen.pop((connection, room), None)
        self.deliver(self.rooms.depart(connection))

    @rule(room=ROOMS, device=st.sampled_from(["d1", "d2"]))
    def evict(self, room: RoomId, device: str) -> None:
        self.deliver(self.rooms.evict(without(device, room=room)))

    @rule(connection=CONNECTIONS, room=ROOMS, jobs=st.integers(0, 3))
    def update(self, connection: str, room: RoomId, jobs: int) -> None:
        try:
            self.deliver(self.rooms.update(connection, room, WorkerInfo(jobs=jobs)))
        except SleapRtcError:
            found = {p.connection: p for p in self.rooms.online(room)}.get(connection)
            assert found is None or found.kind == "client"

    @rule(sender=CONNECTIONS, to=CONNECTIONS, room=ROOMS)
    def relay(self, sender: str, to: str, room: RoomId) -> None:
        online = {p.connection for p in self.rooms.online(room)}
        try:
            tell = self.rooms.relay(sender, room, to, "x")
        except NotFound:
            assert not {sender, to} <= online
        else:
            assert tell.to == (to,)
            assert {sender, to} <= online

    @invariant()
    def everybody_knows_everybody_else(self) -> None:
        for room in (ROOM, OTHER):
            online = {p.connection: p for p in self.rooms.online(room)}
            assert {c for c, r in self.seen if r == room} == set(online)
            for connection in online:
                others = {c: p for c, p in online.items() if c != connection}
                assert self.seen[connection, room] == others

    @invariant()
    def names_of_living_workers_are_unique(self) -> None:
        for room in (ROOM, OTHER):
            names = [p.name.casefold() for p in self.rooms.online(room) if p.kind == "worker"]
            assert len(set(names)) == len(names)

    @invariant()
    def counts_are_right(self) -> None:
        online = [self.rooms.online(room) for room in (ROOM, OTHER)]
        assert self.rooms.counts() == (sum(map(bool, online)), sum(map(len, online)))


TestPresence = PresenceMachine.TestCase
