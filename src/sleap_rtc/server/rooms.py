"""Who is online where: plain state, no socket, no clock.

::

    connection ──in──► room ──► everybody else in it is told: present, absent
    relay: from a connection to another one in the same room, and to no other

A change returns what is to be told to whom. A worker's name is unique among
those online in its room. A process that lost its connection and made a new one
takes its own place again, also while the old one still counts as online.
"""

from __future__ import annotations

from typing import Final

import msgspec

from sleap_rtc.auth.certificates import Member
from sleap_rtc.auth.membership import Membership, check_member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import MAY_WORK, Presence, WorkerInfo
from sleap_rtc.domain.values import encode
from sleap_rtc.errors import Conflict, NotFound, NotPermitted, NotTrusted, UsageError
from sleap_rtc.protocol.signaling import Absent, Entered, FromServer, Present, Relayed

MAX_ROOMS: Final = 100
"""Rooms that one connection may be in."""
MAX_ONLINE: Final = 2_000
"""Connections that may be online in one room."""
MAX_WORKER_INFO: Final = 16 * 1024
"""Bytes of what a worker says of itself."""
MAX_ENTERED: Final = 40 * 1024
"""Bytes of presences that the answer to entering holds; the rest follows."""


class Tell(msgspec.Struct, frozen=True):
    """One message and the connections that get it."""

    to: tuple[str, ...]
    message: FromServer


class Visitor(msgspec.Struct, frozen=True):
    """A connection that is signed in.

    Attributes:
        connection: The server's id of it.
        device: Whose it is.
        instance: Of which process; empty when it didn't say.
    """

    connection: str
    device: DeviceId
    instance: str = ""


class Rooms:
    """Presence in all rooms."""

    def __init__(self) -> None:
        self._online: dict[RoomId, dict[str, Presence]] = {}
        self._visitors: dict[str, Visitor] = {}
        self._in: dict[str, set[RoomId]] = {}
        self._members: dict[tuple[str, RoomId], Member] = {}

    def enter(
        self, visitor: Visitor, presence: Presence, *, member: Member, request: int
    ) -> tuple[Tell, ...]:
        """Be online in a room, or be there anew under another name.

        Args:
            visitor: Who enters.
            presence: What the others see.
            member: Whom its chain proves, before any list is asked.
            request: The request's id, for the answer.

        Returns:
            What to tell: to the visitor first.

        Raises:
            Conflict: Another living worker has this name.
            NotPermitted: Too many rooms, or too many in this one.
            UsageError: The worker says too much of itself.
        """
        room, me = presence.room, visitor.connection
        _check_worker_info(presence.worker)
        others = self._online.get(room, {})
        rival = _same_name(others, presence)
        tells: tuple[Tell, ...] = ()
        if rival is not None and self._is_same_process(visitor, rival):
            # The visitor itself reads in the answer that its old place is free.
            tells = _without(me, self.leave(rival.connection, room))
        elif rival is not None:
            raise _name_taken(presence, rival)
        if me not in others and len(others) >= MAX_ONLINE:
            raise NotPermitted(message=f"{MAX_ONLINE} devices are online in room {room} already.")
        if room not in (mine := self._in.get(me, set())) and len(mine) >= MAX_ROOMS:
            raise NotPermitted(message=f"One connection can be in {MAX_ROOMS} rooms at most.")
        self._visitors[me] = visitor
        self._in.setdefault(me, set()).add(room)
        online = self._online.setdefault(room, {})
        online[me] = presence
        self._members[me, room] = member
        present = [other for connection, other in online.items() if connection != me]
        return (
            *_entered(me, present, request),
            *tells,
            *self._to_others(room, me, Present(presence=presence)),
        )

    def update(self, connection: str, room: RoomId, worker: WorkerInfo) -> tuple[Tell, ...]:
        """Say anew what a worker has.

        Raises:
            NotFound: It isn't online there.
            UsageError: It is no worker, or says too much of itself.
        """
        presence = self.presence(connection, room)
        if presence.kind != "worker":
            raise UsageError(message="Only a worker has hardware and jobs to speak of.")
        _check_worker_info(worker)
        presence = msgspec.structs.replace(presence, worker=worker)
        self._online[room][connection] = presence
        return self._to_others(room, connection, Present(presence=presence))

    def leave(self, connection: str, room: RoomId) -> tuple[Tell, ...]:
        """Be no longer online in a room; nothing happens to one who isn't."""
        if self._online.get(room, {}).pop(connection, None) is None:
            return ()
        del self._members[connection, room]
        self._in[connection].discard(room)
        if not self._in[connection]:
            del self._in[connection], self._visitors[connection]
        if not self._online[room]:
            del self._online[room]
        return self._to_others(room, connection, Absent(room=room, connection=connection))

    def depart(self, connection: str) -> tuple[Tell, ...]:
        """Leave every room: the connection is gone."""
        tells: tuple[Tell, ...] = ()
        for room in sorted(self._in.get(connection, ())):
            tells += self.leave(connection, room)
        return tells

    def evict(self, membership: Membership) -> tuple[Tell, ...]:
        """Put out those who may not be in their room any more, by a newer list.

        Returns:
            What to tell. Those who are out are told so with their own absence.
        """
        room = membership.room
        tells: tuple[Tell, ...] = ()
        for connection, presence in list(self._online.get(room, {}).items()):
            if not _may_stay(self._members[connection, room], presence, membership):
                gone = Absent(room=room, connection=connection)
                tells += (Tell(to=(connection,), message=gone), *self.leave(connection, room))
        return tells

    def announce(self, room: RoomId, message: FromServer, *, but: str) -> tuple[Tell, ...]:
        """Tell something to everybody who is in a room, but for one."""
        return self._to_others(room, but, message)

    def relay(self, sender: str, room: RoomId, to: str, payload: str) -> Tell:
        """Pass something on to another connection in the same room.

        Raises:
            NotFound: The sender or the receiver isn't online there.
        """
        presence = self.presence(sender, room)
        if to not in self._online[room]:
            raise NotFound(
                message=f"Connection {to} is not online in room {room}.",
                hint="It may have reconnected; sleap-rtc workers shows who is online.",
            )
        message = Relayed(room=room, sender=sender, device=presence.device, payload=payload)
        return Tell(to=(to,), message=message)

    def presence(self, connection: str, room: RoomId) -> Presence:
        """What the others see of a connection.

        Raises:
            NotFound: It isn't online there.
        """
        found = self._online.get(room, {}).get(connection)
        if found is None:
            raise NotFound(message=f"This connection is not online in room {room}.")
        return found

    def member(self, connection: str, room: RoomId) -> Member:
        """Whom the chain of a connection proved when it entered.

        Raises:
            NotFound: It isn't online there.
        """
        self.presence(connection, room)
        return self._members[connection, room]

    def online(self, room: RoomId) -> tuple[Presence, ...]:
        """Everybody who is online in a room."""
        return tuple(self._online.get(room, {}).values())

    def counts(self) -> tuple[int, int]:
        """Rooms with somebody online, and presences in all of them."""
        return len(self._online), sum(len(online) for online in self._online.values())

    def _is_same_process(self, visitor: Visitor, rival: Presence) -> bool:
        old = self._visitors[rival.connection]
        return old.device == visitor.device and old.instance == visitor.instance != ""

    def _to_others(self, room: RoomId, me: str, message: FromServer) -> tuple[Tell, ...]:
        others = tuple(other for other in self._online.get(room, {}) if other != me)
        return (Tell(to=others, message=message),) if others else ()


def _may_stay(member: Member, presence: Presence, membership: Membership) -> bool:
    try:
        role = check_member(member, membership).role
    except NotTrusted:
        return False
    return presence.kind != "worker" or role in MAY_WORK


def _without(me: str, tells: tuple[Tell, ...]) -> tuple[Tell, ...]:
    others = (tuple(to for to in tell.to if to != me) for tell in tells)
    return tuple(
        Tell(to=to, message=tell.message) for to, tell in zip(others, tells, strict=True) if to
    )


def _same_name(online: dict[str, Presence], presence: Presence) -> Presence | None:
    """The other living worker with the same name; upper and lower case don't differ."""
    if presence.kind != "worker":
        return None
    wanted = presence.name.casefold()
    return next(
        (
            other
            for connection, other in online.items()
            if connection != presence.connection
            and other.kind == "worker"
            and other.name.casefold() == wanted
        ),
        None,
    )


def _name_taken(presence: Presence, rival: Presence) -> Conflict:
    mine, theirs = presence.device[:12], rival.device[:12]
    if presence.device == rival.device:
        whose = f"another process of the same device, {theirs}"
    else:
        whose = f"device {theirs}; this is device {mine}"
    return Conflict(
        message=f"The worker name {presence.name!r} is taken in this room by {whose}.",
        hint="Give this worker another name with --name.",
    )


def _check_worker_info(worker: WorkerInfo | None) -> None:
    if worker is not None and (size := len(encode(worker))) > MAX_WORKER_INFO:
        raise UsageError(
            message=f"A worker may say {MAX_WORKER_INFO} bytes of itself; these are {size}."
        )


def _entered(me: str, present: list[Presence], request: int) -> tuple[Tell, ...]:
    """The answer, with as many presences as it holds, and a message for each of the rest."""
    first: list[Presence] = []
    size = 0
    for presence in present[:100]:
        size += len(encode(presence))
        if size > MAX_ENTERED:
            break
        first.append(presence)
    rest = [Tell(to=(me,), message=Present(presence=p)) for p in present[len(first) :]]
    return (Tell(to=(me,), message=Entered(id=request, present=tuple(first))), *rest)
