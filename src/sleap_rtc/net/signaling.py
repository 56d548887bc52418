"""The device's side of signaling: signed in for as long as it is wanted.

::

    start ──► connect, sign in ──► enter the rooms again ──► online ──┐
                  ▲                                                   │ lost
                  └────────── wait, longer each time ◄────────────────┘

A request waits for the connection and for its answer, together no longer than
its deadline; when the connection is lost in between it fails, and whoever asked
may ask again (all but `relay` are the same when repeated). What happens is told
as events, in order, to one reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Self, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import DeviceKind, Presence, WorkerInfo
from sleap_rtc.errors import (
    Busy,
    Conflict,
    DeadlineExceeded,
    LinkLost,
    NotFound,
    NotPermitted,
    ProtocolError,
    ServerUnreachable,
    SleapRtcError,
    UsageError,
    VersionMismatch,
)
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.backoff import delay
from sleap_rtc.net.events import Connected, Disconnected, Event, RoomEntered, RoomLost
from sleap_rtc.net.sign_in import Credentials, sign_in
from sleap_rtc.net.websocket import WebSocket
from sleap_rtc.protocol.signaling import (
    Absent,
    ChainTold,
    CreateRoom,
    Done,
    Entered,
    EnterRoom,
    FromServer,
    GetChain,
    GetMembers,
    GetMembership,
    Joined,
    JoinRoom,
    LeaveRoom,
    MembershipNews,
    MembershipTold,
    MembersTold,
    Present,
    PutChain,
    PutMembership,
    Refused,
    Relay,
    Relayed,
    Request,
    UpdateWorker,
    from_device,
    from_server,
)

LOOK_S: Final = 1.0
"""Seconds between two looks whether this machine still has the address that it speaks from."""
DEADLINE: Final = 10.0
"""Seconds that a request may take, unless its caller says otherwise."""
MAX_PRESENT: Final = 10_000
"""Devices that may be online in one room; servers allow fewer."""
MAX_EVENTS: Final = 10_000
"""Events that wait to be read, before the connection is given up."""

_FINAL: Final = (NotPermitted, VersionMismatch, UsageError)
"""What no waiting mends, when a device signs in for the first time."""
_ROOM_LOST: Final = (NotPermitted, NotFound, UsageError, Conflict)
"""What no waiting mends, when a device enters a room again."""

_FROM_OUTSIDE: Final = (Present, Absent, Relayed, MembershipNews)
"""Events that the server's messages are, and so are bounded."""

Answer = Done | Joined | Entered | MembershipTold | MembersTold | ChainTold | Refused
A = TypeVar("A", Done, Joined, Entered, MembershipTold, MembersTold, ChainTold)


async def _leave_with_address(socket: WebSocket) -> None:
    """End a connection when this machine moves to another network: it would only fall silent."""
    while True:
        await asyncio.sleep(LOOK_S)
        if socket.uprooted:
            break
    logger.info("this machine's address has changed")
    socket.abandon()


class _Call(msgspec.Struct):
    """A request that waits for its answer."""

    request: Request
    answer: asyncio.Future[Answer]


class SignalingClient:
    """A device at one server.

    Use it as a context manager, which ends the connection::

        async with SignalingClient(server, device=…, sign=key.sign, name=…) as client:
            await client.start()
            others = await client.enter_room(room, chain=…, name=…, kind="client")

    Args:
        server: The server's address.
        device: This device's id.
        sign: Signs as this device: (context, payload) → 64 bytes.
        name: What the device calls itself.
        program: Name and version of the program.
        setup_code: Registers the device, if it isn't registered yet.
        invite: A join chain as JSON texts; registers the device for that room.
    """

    def __init__(
        self,
        server: ServerAddress,
        *,
        device: DeviceId,
        sign: Callable[[str, bytes], bytes],
        name: str,
        program: str = "",
        setup_code: str | None = None,
        invite: Sequence[str] | None = None,
    ) -> None:
        self.server = server
        self._credentials = Credentials(
            device=device,
            sign=sign,
            name=name,
            program=program,
            instance=secrets.token_hex(16),
            setup_code=setup_code,
            invite=None if invite is None else tuple(invite),
        )
        self._rooms: dict[RoomId, EnterRoom] = {}
        self._present: dict[RoomId, dict[str, Presence]] = {}
        self._calls: dict[int, _Call] = {}
        self._last_id = 0
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._online = asyncio.Event()
        self._socket: WebSocket | None = None
        self._connected: Connected | None = None
        self._last_error: SleapRtcError | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ── what one can know ────────────────────────────────────────────────────

    @property
    def connected(self) -> Connected | None:
        """What the server said at sign-in; None while there is no connection."""
        return self._connected if self._socket is not None else None

    def present(self, room: RoomId) -> tuple[Presence, ...]:
        """Who else is online in a room that this device is in; nobody, while it is offline."""
        return tuple(self._present.get(room, {}).values())

    async def events(self) -> AsyncIterator[Event]:
        """What happens, in order, until the client is closed. For one reader."""
        while (event := await self._events.get()) is not None:
            yield event

    # ── the connection ───────────────────────────────────────────────────────

    async def start(self, *, patient: bool = False) -> Connected:
        """Sign in, and stay signed in from now on.

        Args:
            patient: Whether to keep trying while the server can't be reached. What no waiting
                mends (an unknown device, a wrong code) is raised all the same.

        Raises:
            ServerUnreachable: Unless patient.
            NotSignedIn: The server doesn't know the device.
            NotPermitted: The set-up code or the invite is no good.
            NotTrusted: The signature isn't accepted.
            VersionMismatch: Server and device speak no common version.
            DeadlineExceeded: The server doesn't answer.
            ProtocolError: What it answers breaks the protocol.
        """
        if self._keeper is not None:
            raise RuntimeError("this client was started before")
        attempt = 0
        while True:
            try:
                socket, connected = await sign_in(self.server, self._credentials)
                break
            except SleapRtcError as error:
                if not patient or isinstance(error, _FINAL):
                    raise
                attempt += 1
                if attempt == 1:
                    logger.warning("offline: {}", error.message)
                await self._wait(attempt, error)
        self._credentials = msgspec.structs.replace(self._credentials, setup_code=None, invite=None)
        self._keeper = asyncio.create_task(self._keep(socket, connected))
        await self._online.wait()
        return connected

    async def close(self) -> None:
        """End the connection, and the events with it."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._online.clear()
        self._socket = None
        self._events.put_nowait(None)

    async def _keep(self, socket: WebSocket, connected: Connected) -> None:
        """Stay connected for ever; ends when it is cancelled."""
        attempt = 0
        while True:
            error = await self._serve(socket, connected)
            attempt = 1 if self._online.is_set() else attempt + 1
            self._go_offline(error)
            while True:
                await self._wait(attempt, error)
                try:
                    socket, connected = await sign_in(self.server, self._credentials)
                    break
                except SleapRtcError as failure:
                    self._last_error = error = failure
                    attempt += 1

    async def _serve(self, socket: WebSocket, connected: Connected) -> SleapRtcError:
        """Use one connection until it is lost.

        Returns:
            Why it was.
        """
        self._socket, self._connected = socket, connected
        self._emit(connected)
        reader = asyncio.create_task(self._read(socket))
        looking = asyncio.create_task(_leave_with_address(socket))
        try:
            await self._enter_again()
            self._online.set()
            logger.info("signed in to {}, connection {}", self.server.url, connected.connection)
            return await reader
        except SleapRtcError as error:
            return error
        finally:
            reader.cancel()
            looking.cancel()
            await asyncio.wait([reader, looking])
            self._fail_calls(LinkLost(peer=self.server.url, why="it was closed here"))
            await socket.close()

    def _go_offline(self, error: SleapRtcError) -> None:
        self._online.clear()
        self._socket = None
        self._last_error = error
        self._present.clear()
        logger.warning("offline: {}", error.message)
        self._emit(Disconnected(error=error))

    async def _wait(self, attempt: int, error: SleapRtcError) -> None:
        seconds = delay(attempt, random.random())  # noqa: S311 - spreads load, guards nothing
        logger.debug("{} Trying again in {:.1f} s.", error.message, seconds)
        await asyncio.sleep(seconds)

    async def _enter_again(self) -> None:
        for room, entry in list(self._rooms.items()):
            try:
                async with asyncio.timeout(DEADLINE):
                    await self._ask(entry, Entered)
            except TimeoutError:
                raise DeadlineExceeded(what="Entering a room", seconds=f"{DEADLINE:g}") from None
            except _ROOM_LOST as error:
                if isinstance(error, Busy):
                    raise
                self._lose_room(room, error)

    def _lose_room(self, room: RoomId, error: SleapRtcError) -> None:
        self._rooms.pop(room, None)
        self._present.pop(room, None)
        self._emit(RoomLost(room=room, error=error))

    # ── reading ──────────────────────────────────────────────────────────────

    async def _read(self, socket: WebSocket) -> SleapRtcError:
        """Take what comes until the connection is lost.

        Returns:
            Why it was.
        """
        try:
            while True:
                self._take(from_server.decode(await socket.receive(), peer="the server"))
        except SleapRtcError as error:
            self._fail_calls(error)
            return error

    def _take(self, message: FromServer) -> None:
        match message:
            case Refused(id=None):
                raise message.error
            case Done() | Joined() | Entered() | MembershipTold() | Refused():
                self._take_answer(message)
            case MembersTold() | ChainTold():
                self._take_answer(message)
            case Present():
                self._take_present(message)
            case Absent():
                self._take_absent(message)
            case Relayed() | MembershipNews():
                self._emit(message)
            case _:
                raise ProtocolError(peer="the server", why="a message out of turn")

    def _take_answer(self, message: Answer) -> None:
        call = self._calls.pop(-1 if message.id is None else message.id, None)
        if call is None:
            return  # whoever asked waits no longer
        if isinstance(message, Entered) and isinstance(call.request, EnterRoom):
            room = call.request.room
            self._rooms[room] = call.request
            self._present[room] = {other.connection: other for other in message.present}
            self._emit(RoomEntered(room=room, present=message.present))
        if not call.answer.done():
            call.answer.set_result(message)

    def _take_present(self, message: Present) -> None:
        presence = message.presence
        online = self._present.get(presence.room)
        if online is None:
            return  # a room that this device isn't in is nothing to it
        if len(online) >= MAX_PRESENT and presence.connection not in online:
            raise ProtocolError(peer="the server", why=f"more than {MAX_PRESENT} devices in a room")
        online[presence.connection] = presence
        self._emit(message)

    def _take_absent(self, message: Absent) -> None:
        if self._connected is not None and message.connection == self._connected.connection:
            why = f"This device was removed from room {message.room}."
            self._lose_room(message.room, NotPermitted(message=why))
        else:
            self._present.get(message.room, {}).pop(message.connection, None)
            self._emit(message)

    def _emit(self, event: Event) -> None:
        # What the client itself has to say is always told; what comes from outside is bounded.
        if self._events.qsize() >= MAX_EVENTS and isinstance(event, _FROM_OUTSIDE):
            raise LinkLost(peer=self.server.url, why="too many events wait to be read")
        self._events.put_nowait(event)

    def _fail_calls(self, error: SleapRtcError) -> None:
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.answer.done():
                call.answer.set_exception(error)
                call.answer.exception()  # whoever asked may have gone, and never look

    # ── requests ─────────────────────────────────────────────────────────────

    async def create_room(
        self, room: RoomId, *, name: str, chain: Sequence[str], within: float = DEADLINE
    ) -> None:
        """Make a room known to the server.

        Args:
            room: The room.
            name: What people call it.
            chain: Proves that this device owns it, as JSON texts.
            within: Seconds.

        Raises:
            NotPermitted: The device may not create rooms here.
            NotTrusted: The chain is no good.
            NetworkError: The server can't be asked.
        """
        await self._request(
            CreateRoom(id=0, room=room, name=name, chain=tuple(chain)), Done, within
        )

    async def join_room(
        self, room: RoomId, *, chain: Sequence[str], within: float = DEADLINE
    ) -> str:
        """Use an invite.

        Args:
            room: The room.
            chain: This device's, which it joined by the invite's secret, as JSON texts.
            within: Seconds.

        Returns:
            What the room is called.

        Raises:
            NotTrusted: The chain is no good, or the invite is used up.
            NotFound: The server doesn't know the room.
            NetworkError: The server can't be asked.
        """
        request = JoinRoom(id=0, room=room, chain=tuple(chain))
        return (await self._request(request, Joined, within)).name

    async def enter_room(
        self,
        room: RoomId,
        *,
        chain: Sequence[str],
        name: str,
        kind: DeviceKind,
        worker: WorkerInfo | None = None,
        within: float = DEADLINE,
    ) -> tuple[Presence, ...]:
        """Be online in a room, from now on and again after each loss of the connection.

        Args:
            room: The room.
            chain: This device's, as JSON texts.
            name: What it is called there.
            kind: As what it is there.
            worker: What a worker says of itself.
            within: Seconds.

        Returns:
            Who else is online, as far as one message holds; :meth:`present` has them all.

        Raises:
            Conflict: Another living worker has this name.
            NotTrusted: The device is no member.
            NotPermitted: Its role doesn't let it be a worker.
            NotFound: The server doesn't know the room.
            NetworkError: The server can't be asked.
        """
        entry = EnterRoom(id=0, room=room, chain=tuple(chain), name=name, kind=kind, worker=worker)
        return (await self._request(entry, Entered, within)).present

    async def leave_room(self, room: RoomId, *, within: float = DEADLINE) -> None:
        """Be no longer online in a room.

        Raises:
            NetworkError: The server can't be asked; the device doesn't come back to it all the
                same.
        """
        self._rooms.pop(room, None)
        self._present.pop(room, None)
        await self._request(LeaveRoom(id=0, room=room), Done, within)

    async def update_worker(
        self, room: RoomId, worker: WorkerInfo, *, within: float = DEADLINE
    ) -> None:
        """Say anew what this worker has; also when it enters the room again.

        Raises:
            NotFound: It isn't online in the room.
            NetworkError: The server can't be asked.
        """
        entry = self._rooms.get(room)
        if entry is not None:
            self._rooms[room] = msgspec.structs.replace(entry, worker=worker)
        await self._request(UpdateWorker(id=0, room=room, worker=worker), Done, within)

    async def relay(self, room: RoomId, to: str, payload: str, *, within: float = DEADLINE) -> None:
        """Pass something on to a connection in the same room.

        Args:
            room: The room.
            to: The receiver's connection.
            payload: Up to 48 KiB; the server doesn't read it.
            within: Seconds.

        Raises:
            NotFound: It isn't online there (any more), or this device isn't.
            NetworkError: The server can't be asked. It may have been passed on all the same.
        """
        await self._request(Relay(id=0, room=room, to=to, payload=payload), Done, within)

    async def put_membership(self, room: RoomId, signed: str, *, within: float = DEADLINE) -> None:
        """Have the server keep a membership list.

        Args:
            room: The room.
            signed: The signed list as JSON text.
            within: Seconds.

        Raises:
            NotTrusted: No owner signed it, or the server has a newer one.
            NetworkError: The server can't be asked.
        """
        await self._request(PutMembership(id=0, room=room, signed=signed), Done, within)

    async def get_membership(self, room: RoomId, *, within: float = DEADLINE) -> str | None:
        """The newest list that the server has, for a room that this device is online in.

        Returns:
            The signed list as JSON text, to be checked; None when there is none.

        Raises:
            NotFound: The device isn't online in the room.
            NetworkError: The server can't be asked.
        """
        told = await self._request(GetMembership(id=0, room=room), MembershipTold, within)
        return told.signed

    async def get_members(
        self,
        room: RoomId,
        *,
        after: DeviceId | None = None,
        due: bool = False,
        within: float = DEADLINE,
    ) -> MembersTold:
        """Members of a room that this device owns and is online in.

        Args:
            room: The room.
            after: Only those behind this device.
            due: Only those who are to be renewed.
            within: Seconds.

        Raises:
            NotPermitted: The device is no owner.
            NotFound: It isn't online in the room.
            NetworkError: The server can't be asked.
        """
        request = GetMembers(id=0, room=room, after=after, due=due)
        return await self._request(request, MembersTold, within)

    async def put_chain(
        self, room: RoomId, *, chain: Sequence[str], within: float = DEADLINE
    ) -> None:
        """Have the server keep a member's renewed certificates.

        Raises:
            NotTrusted: The chain proves nobody who is a member.
            NotFound: The device isn't online in the room.
            NetworkError: The server can't be asked.
        """
        await self._request(PutChain(id=0, room=room, chain=tuple(chain)), Done, within)

    async def get_chain(self, room: RoomId, *, within: float = DEADLINE) -> tuple[str, ...] | None:
        """This device's newest certificates that the server has, to be checked.

        Raises:
            NetworkError: The server can't be asked.
        """
        return (await self._request(GetChain(id=0, room=room), ChainTold, within)).chain

    def replace_chain(self, room: RoomId, chain: Sequence[str]) -> None:
        """Enter a room with this chain when the connection is made anew."""
        entry = self._rooms.get(room)
        if entry is not None:
            self._rooms[room] = msgspec.structs.replace(entry, chain=tuple(chain))

    async def _request(self, request: Request, answer: type[A], within: float) -> A:
        try:
            async with asyncio.timeout(within):
                await self._online.wait()
                return await self._ask(request, answer)
        except TimeoutError:
            if not self._online.is_set():
                why = self._last_error.message if self._last_error else "it was never reached"
                raise ServerUnreachable(url=self.server.url, why=why) from None
            what = f"The server's answer to {type(request).__struct_config__.tag}"
            raise DeadlineExceeded(what=what, seconds=f"{within:g}") from None

    async def _ask(self, request: Request, answer: type[A]) -> A:
        """Give a request its id, send it over the connection that there is, await its answer."""
        if self._socket is None:
            raise LinkLost(peer=self.server.url, why="it broke off just now")
        self._last_id += 1
        request = msgspec.structs.replace(request, id=self._last_id)
        try:
            data = from_device.encode(request)
        except ValueError as error:
            raise UsageError(message=f"This is too large to be sent: {error}.") from None
        call = _Call(request=request, answer=asyncio.get_running_loop().create_future())
        self._calls[request.id] = call
        try:
            await self._socket.send(data)
            told = await call.answer
        finally:
            self._calls.pop(request.id, None)
        if isinstance(told, Refused):
            raise told.error
        if not isinstance(told, answer):
            raise ProtocolError(peer="the server", why="an answer to another question")
        return told
