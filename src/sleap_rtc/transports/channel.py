"""One authenticated connection of a link: requests, notices and content over it.

The rules are in pure machines (``auth/handshake.py``, ``protocol/session.py``,
``protocol/frames.py``); this is the shell that reads, writes and keeps time.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from loguru import logger

from sleap_rtc.auth.handshake import (
    Authenticated,
    Done,
    Handshake,
    Refuse,
    SaveInvite,
    SaveMembership,
    SaveWorker,
    Setup,
)
from sleap_rtc.auth.handshake import Send as SendHandshake
from sleap_rtc.auth.membership import Membership
from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import (
    DataError,
    FeatureMissing,
    LinkLost,
    NotPermitted,
    PeerUnreachable,
    ProtocolError,
    SleapRtcError,
)
from sleap_rtc.protocol import direct, frames
from sleap_rtc.protocol.handshake import (
    HANDSHAKE_SECONDS,
    Purpose,
    Refusal,
    Side,
    handshake_codec,
)
from sleap_rtc.protocol.link import (
    CANNOT,
    NEEDS,
    AnyReply,
    AnyRequest,
    Bye,
    Frame,
    NoticeBody,
    Reply,
    ReplyBody,
    RequestBody,
)
from sleap_rtc.protocol.link import Notice as NoticeFrame
from sleap_rtc.protocol.link import frames as link_codec
from sleap_rtc.protocol.session import (
    Answered,
    Asked,
    Dead,
    Effect,
    Heard,
    Left,
    Send,
    Session,
    Silent,
    Told,
    Withdrawn,
)
from sleap_rtc.transports.blocks import BlockClient, BlockServer, Shelf
from sleap_rtc.transports.connection import Connection, Packets, Tapped
from sleap_rtc.transports.direct.shortcut import Shortcut, Ways
from sleap_rtc.transports.throttle import Throttle

TICK_S: Final = 0.25


class Trust(Protocol):
    """What this device knows of a room's trust, and where it keeps what it learns."""

    def setup(
        self,
        *,
        side: Side,
        session: str,
        purpose: Purpose,
        nonce: bytes,
        own_fingerprint: bytes,
        peer_fingerprint: bytes,
        now: datetime,
        expected: DeviceId | None,
        expected_worker: str | None,
    ) -> Setup:
        """What to bring to a handshake."""
        ...

    def save_membership(self, membership: Membership) -> None:
        """Keep a newer membership list."""
        ...

    def save_invite(self, invite: DeviceId, device: DeviceId) -> None:
        """Remember who used a single-use invite.

        Raises:
            NotTrusted: Another device has used it meanwhile.
        """
        ...

    def save_worker(self, name: str, device: DeviceId, *, instead_of: DeviceId | None) -> None:
        """Remember which device is the worker of this name.

        Raises:
            WorkerChanged: Another one was met meanwhile.
        """
        ...


async def authenticate(
    connection: Connection,
    trust: Trust,
    *,
    side: Side,
    session: str,
    purpose: Purpose,
    expected: DeviceId | None = None,
    expected_worker: str | None = None,
) -> Authenticated:
    """Run the handshake over a fresh connection; it is closed when that fails.

    Args:
        connection: The connection.
        trust: What this device brings, and where it keeps what it learns.
        side: This device's part in making the connection.
        session: The link's id.
        purpose: What the connection is for.
        expected: The device that must be at the other end; None accepts any member.
        expected_worker: The worker's name that it must have; None accepts any.

    Raises:
        NotPermitted: The peer, or this device, isn't trusted, or the peer refused.
        ProtocolError: The peer breaks the rules.
        PeerUnreachable: It took longer than :data:`HANDSHAKE_SECONDS`.
        LinkLost: The connection ended.
    """
    handshake = Handshake(
        trust.setup(
            side=side,
            session=session,
            purpose=purpose,
            nonce=secrets.token_bytes(32),
            own_fingerprint=connection.local_fingerprint,
            peer_fingerprint=connection.remote_fingerprint,
            now=datetime.now(UTC),
            expected=expected,
            expected_worker=expected_worker,
        )
    )
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            return await _exchange(connection, handshake, trust)
    except TimeoutError:
        await connection.close()
        why = f"it did not prove itself within {HANDSHAKE_SECONDS} s"
        raise PeerUnreachable(peer="The other side", why=why) from None
    except BaseException:
        await connection.close()
        raise


async def _exchange(connection: Connection, handshake: Handshake, trust: Trust) -> Authenticated:
    effects = handshake.start()
    while True:
        for effect in effects:
            match effect:
                case SendHandshake():
                    connection.send_text(handshake_codec.encode(effect.message))
                case SaveMembership():
                    await asyncio.to_thread(trust.save_membership, effect.membership)
                case SaveInvite():
                    await asyncio.to_thread(trust.save_invite, effect.invite, effect.device)
                case SaveWorker(name=name, device=device, instead_of=instead_of):
                    await asyncio.to_thread(trust.save_worker, name, device, instead_of=instead_of)
                case Done():
                    return effect.result
                case Refuse():
                    raise effect.error
        arrived = await connection.receive()
        try:
            if arrived.binary:
                raise ProtocolError(peer="The other side", why="content before the handshake")
            effects = handshake.receive(handshake_codec.decode(arrived.data, peer="The other side"))
        except ProtocolError as error:
            effects = handshake.refuse(error)


_HEARD_S: Final = 0.1
"""Seconds in which pieces of content are one sign of life: there may be thousands of them."""

Handler = Callable[["Channel", RequestBody, str], Awaitable[ReplyBody]]
"""Answers a request: gets the channel, the body and the request's id."""


async def no_requests(channel: Channel, body: RequestBody, request: str) -> ReplyBody:
    """The handler of a side that answers nothing."""
    raise ProtocolError(peer=channel.peer_name, why=f"a request {type(body).__name__} to a client")


class Channel:
    """An authenticated connection at work.

    Args:
        connection: The connection, after the handshake.
        proven: What the handshake proved.
        handler: Answers the peer's requests.
        shelf: What the peer may fetch here.
        on_notice: Called with every notice.
        on_life: Called with False when the peer falls silent and True when it is heard again.
        throttle: Limits what is sent of content.
        ways: This process's direct connections, for content; None for none.
    """

    def __init__(
        self,
        connection: Connection,
        proven: Authenticated,
        *,
        handler: Handler = no_requests,
        shelf: Shelf = lambda _: None,
        on_notice: Callable[[NoticeBody], None] = lambda _: None,
        on_life: Callable[[bool], None] = lambda _: None,
        throttle: Throttle | None = None,
        ways: Ways | None = None,
    ) -> None:
        self.proven = proven
        self.peer_name = proven.peer.name
        self._shortcut: Shortcut | None = None
        if ways is not None and proven.purpose == "blocks":
            self._shortcut = Shortcut(
                ways,
                session=proven.session,
                peer=self.peer_name,
                able=direct.FEATURE in proven.features,
                ask=self._ask_direct,
                shelf=shelf,
                throttle=throttle,
            )
        self.blocks = BlockClient(
            connection,
            name=self.peer_name,
            faster=self._shortcut,
            several=frames.FEATURE in proven.features,
        )
        self._connection = connection
        self._session = Session(now=time.monotonic(), peer=self.peer_name)
        self._handler = handler
        self._server = BlockServer(connection, shelf=shelf, peer=self.peer_name, throttle=throttle)
        self._on_notice = on_notice
        self._on_life = on_life
        self._asked: dict[str, asyncio.Future[AnyReply]] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._closing = asyncio.Event()
        self._heard_at = 0.0
        self._tapped_at = 0.0
        self._tapped = 0
        if proven.purpose == "blocks" and isinstance(connection, Tapped):
            connection.tap(self._take)
        self._why: SleapRtcError | None = None

    @property
    def open(self) -> bool:
        """Whether it can be used."""
        return self._why is None and not self._connection.closed

    @property
    def quickest_s(self) -> float | None:
        """Seconds of the quickest ping's round trip; None before a few have come back."""
        return self._session.quickest_s

    @property
    def recent_s(self) -> float | None:
        """Seconds of the quicker round trip of the last pings; None before there were some."""
        return self._session.recent_s

    def ping_often(self) -> None:
        """Look every quarter of a second how long the line takes, for the next second."""
        self._session.ping_often(time.monotonic())

    async def packets(self) -> Packets | None:
        """What its connection has sent so far; None if its library doesn't tell."""
        return await self._connection.packets()

    @property
    def moved(self) -> int:
        """Bytes that have left or arrived."""
        return self._connection.moved + self._tapped

    async def request(self, body: RequestBody, *, id: str, within_s: float) -> ReplyBody:  # noqa: A002
        """Ask the peer.

        Args:
            body: What is asked.
            id: The request's id; asking again with the same one is the same request.
            within_s: Seconds to wait for the answer.

        Raises:
            LinkLost: The connection ended first.
            DeadlineExceeded: No answer in time.
            FeatureMissing: The peer is too old to be asked that; nothing was sent.
            SleapRtcError: The peer's own error.
        """
        answer = await self._request(body, id=id, within_s=within_s)
        if isinstance(answer, direct.DirectOpened):
            raise ProtocolError(peer=self.peer_name, why="an answer to another request")
        return answer

    async def _ask_direct(self, body: direct.OpenDirect) -> direct.DirectOpened:
        answer = await self._request(body, id=str(uuid.uuid4()), within_s=direct.WITHIN_S)
        if not isinstance(answer, direct.DirectOpened):
            raise ProtocolError(peer=self.peer_name, why="an answer to another request")
        return answer

    async def _request(self, body: AnyRequest, *, id: str, within_s: float) -> AnyReply:  # noqa: A002
        if not self.open:
            raise self._lost()
        feature = NEEDS.get(type(body))
        if feature is not None and feature not in self.proven.features:
            raise FeatureMissing(peer=self.peer_name, what=CANNOT[feature])
        future: asyncio.Future[AnyReply] = asyncio.get_running_loop().create_future()
        self._asked[id] = future
        try:
            self._carry_out(self._session.ask(body, id=id, now=time.monotonic(), within_s=within_s))
            return await future
        finally:
            if self._asked.get(id) is future:
                del self._asked[id]
            if future.cancelled() and self.open:
                self._carry_out(self._session.forget(id))

    async def tell(self, body: NoticeBody) -> None:
        """Send a notice, once those before it have mostly left.

        Raises:
            LinkLost: The connection is closed.
        """
        await self._connection.room()
        self._connection.send_text(link_codec.encode(NoticeFrame(body=body)))

    async def run(self) -> None:
        """Work until the connection ends, for whatever reason; :attr:`ended_by` says which."""
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._keep_time()),
            asyncio.create_task(self._until_closed()),
        ]
        if self.proven.purpose == "blocks":
            tasks.append(asyncio.create_task(self._server.run()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, SleapRtcError):
                    self._why = self._why or error
                elif error is not None:
                    raise error
        finally:
            await self._finish([*tasks, *self._working.values()])

    async def close(self, reason: str = "done") -> None:
        """Say goodbye; :meth:`run` then ends."""
        if self.open:
            with contextlib.suppress(LinkLost):
                self._connection.send_text(link_codec.encode(Bye(reason=reason[:1_000])))
        self.abandon(reason)

    async def finish(self) -> None:
        """Begin no answer to the peer any more, and wait until those that are begun are over.

        What else it asked for it asks elsewhere, once this is closed. On this side whoever asks for
        content knows that this connection is :attr:`~BlockClient.leaving`.
        """
        await asyncio.gather(self._server.finish(), self.blocks.idle())
        await self._connection.emptied()

    def abandon(self, reason: str) -> None:
        """Take the connection for lost: nobody is there to say goodbye to."""
        self._why = self._why or LinkLost(peer=self.peer_name, why=reason)
        self._closing.set()

    @property
    def ended_by(self) -> SleapRtcError | None:
        """Why it ended, None while it works."""
        return self._why

    # ── tasks ────────────────────────────────────────────────────────────────

    async def _read(self) -> None:
        while True:
            arrived = await self._connection.receive()
            try:
                if arrived.binary:
                    self._content(arrived.data)
                else:
                    frame = self._frame(arrived.data)
                    self._carry_out(self._session.handle(frame, time.monotonic()))
            except ProtocolError as error:
                logger.warning("{}: {}", self.peer_name, error)
                await self.close(error.message)
                raise

    def _frame(self, raw: bytes) -> Frame:
        try:
            return link_codec.decode(raw, peer=self.peer_name)
        except ProtocolError as error:
            # The peer may refuse at its last step, when this side has finished the handshake.
            with contextlib.suppress(ProtocolError):
                late = handshake_codec.decode(raw, peer=self.peer_name)
                if isinstance(late, Refusal):
                    raise NotPermitted(message=f"{self.peer_name} refused: {late.why}") from None
            raise error from None

    def _content(self, raw: bytes) -> None:
        if self.proven.purpose != "blocks":
            raise ProtocolError(peer=self.peer_name, why="content on a control connection")
        now = time.monotonic()
        if now - self._heard_at > _HEARD_S:
            self._heard_at = now
            self._carry_out(self._session.heard(now))
        frame = frames.decode(raw, peer=self.peer_name)
        match frame:
            case frames.Data() | frames.End() | frames.Refuse():
                self.blocks.handle(frame)
            case _:
                self._server.handle(frame)

    def _take(self, raw: bytes) -> bool:
        """Take content past the event loop; from the connection's own thread."""
        if not self.blocks.take(raw):
            return False
        self._tapped += len(raw)
        self._tapped_at = time.monotonic()
        return True

    async def _keep_time(self) -> None:
        while True:
            if self._tapped_at > self._heard_at:
                self._heard_at = self._tapped_at
                self._carry_out(self._session.heard(self._heard_at))
            self._carry_out(self._session.tick(time.monotonic()))
            await asyncio.sleep(TICK_S)

    async def _until_closed(self) -> None:
        await self._closing.wait()

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        self._why = self._why or self._lost()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._shortcut is not None:
            await self._shortcut.close()
        await self._connection.close()
        lost = self._lost()
        self.blocks.end(lost)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(lost)

    def _lost(self) -> LinkLost:
        if isinstance(self._why, LinkLost):
            return self._why
        why = self._why.message if self._why is not None else "the connection ended"
        return LinkLost(peer=self.peer_name, why=why)

    # ── effects of the session machine ───────────────────────────────────────

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._connection.send_text(link_codec.encode(effect.frame))
                case Asked():
                    task = asyncio.create_task(self._work(effect))
                    self._working[effect.id] = task
                case Withdrawn():
                    task_ = self._working.get(effect.id)
                    if task_ is not None:
                        task_.cancel()
                case Answered():
                    self._resolve(effect)
                case Told():
                    self._on_notice(effect.body)
                case Left():
                    raise LinkLost(peer=self.peer_name, why=effect.reason or "it said goodbye")
                case Silent():
                    self._on_life(False)
                case Heard():
                    self._on_life(True)
                case Dead():
                    raise LinkLost(peer=self.peer_name, why="nothing was heard from it any more")

    def _resolve(self, answered: Answered) -> None:
        future = self._asked.get(answered.id)
        if future is None or future.done():
            return
        if isinstance(answered.result, SleapRtcError):
            future.set_exception(answered.result)
        else:
            future.set_result(answered.result)

    async def _work(self, asked: Asked) -> None:
        try:
            async with asyncio.timeout(asked.within_s):
                body = await self._handle(asked)
            size = _size(asked.id, body)
            effects = self._session.answer(asked.id, body, size=size)
        except SleapRtcError as error:
            effects = self._session.refuse(asked.id, error)
        except TimeoutError:
            effects = []  # the asker's own deadline has passed too
        except Exception:  # noqa: BLE001 - one bad request must not end the connection
            # A fault of ours: the log has it whole, the peer learns only that it happened.
            logger.exception("a request of {} failed", self.peer_name)
            fault = SleapRtcError(message="The other side failed to answer; its log says why.")
            effects = self._session.refuse(asked.id, fault)
        finally:
            if self._working.get(asked.id) is asyncio.current_task():
                del self._working[asked.id]
        with contextlib.suppress(LinkLost):
            self._carry_out(effects)

    async def _handle(self, asked: Asked) -> AnyReply:
        if not isinstance(asked.body, direct.OpenDirect):
            return await self._handler(self, asked.body, asked.id)
        if self._shortcut is None:
            raise NotPermitted(message="This connection has no direct ones beside it.")
        return await self._shortcut.answer(asked.body)


def _size(request: str, body: AnyReply) -> int:
    """An answer's size in bytes; one that no message can hold is an error that says so."""
    try:
        data = link_codec.encode(Reply(id=request, body=body))
    except ValueError as error:
        raise DataError(what="The answer", why=f"it is too large to be sent ({error})") from None
    return len(data)
