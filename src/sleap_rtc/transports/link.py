"""A link to one peer: a session that outlives its connections.

The side that opens a link (the client) dials, notices when a connection is gone
and dials again, for as long as the link is wanted. Requests wait meanwhile: they
have ids, so asking again is the same request. Content is asked for block by
block, so a transfer goes on where it was.

::

    connecting ──► up ◄──► silent      nothing heard for 5 s, perhaps the network
        ▲          │          │
        └── down ◄─┴──────────┘        lost; dialled again, 0.5 s to 15 s apart

    any ──► closed                     it isn't wanted any more, or waiting can't mend it

Content has a connection of its own, and on a long line more of them while that
makes it faster (``widening.py``).

A silent connection is lost after 20 s, or at once when the peer is online as
somebody else: then the process that it belonged to has ended. Without silence
that proves nothing, since a peer also signs in anew when the server was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Literal

from loguru import logger

from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.domain.ids import PackageId, RoomId
from sleap_rtc.domain.places import MAY_WORK, Presence
from sleap_rtc.errors import (
    DeadlineExceeded,
    LinkLost,
    NetworkError,
    NotFound,
    NotPermitted,
    NotTrusted,
    PeerUnreachable,
    SleapRtcError,
)
from sleap_rtc.protocol.handshake import Purpose
from sleap_rtc.protocol.link import NoticeBody, ReplyBody, RequestBody
from sleap_rtc.transports.blocks import BlockClient, Served
from sleap_rtc.transports.channel import Channel
from sleap_rtc.transports.connection import Packets
from sleap_rtc.transports.peer import Peer
from sleap_rtc.transports.switchboard import Switchboard
from sleap_rtc.transports.throttle import Throttle
from sleap_rtc.transports.widening import WINDOW_S, Widening, is_crowded, is_far

State = Literal["connecting", "up", "silent", "down", "closed"]

RETRY_FIRST_S: Final = 0.5
RETRY_MOST_S: Final = 15.0
FINISH_S: Final = 10.0
"""Seconds that a connection which isn't wanted any more has for what it is sending."""
_SILENT: Final = "It may be busy, or stopped: try again, and look at its machine if that stays so."


class Link:
    """A session with one peer. Use it as an asynchronous context manager.

    Args:
        switchboard: Makes the connections.
        room: The room that both are in.
        locate: Tells where the peer is online now; None while it isn't.
        name: The worker's name, which it must go by and keep; also names it in errors.
        on_notice: Called with every notice.
        on_state: Called with every change of the control connection's state.
        on_up: Awaited after each (re)connection of control, before requests go on: what the
            peer forgot with the old connection is said again here.
        on_blocks: Called with each block connection that comes up, and with the same one and
            False when it is gone.
        throttle: Limits what is sent of content.
    """

    def __init__(
        self,
        switchboard: Switchboard,
        *,
        room: RoomId,
        locate: Callable[[], Presence | None],
        name: str,
        on_notice: Callable[[NoticeBody], None] = lambda _: None,
        on_state: Callable[[State], None] = lambda _: None,
        on_up: Callable[[Channel], Awaitable[None]] | None = None,
        on_blocks: Callable[[BlockClient, bool], None] = lambda _client, _up: None,
        throttle: Throttle | None = None,
    ) -> None:
        self.session = str(uuid.uuid4())
        self.name = name
        self.state: State = "connecting"
        self._switchboard = switchboard
        self._room = room
        self._locate = locate
        self._on_notice = on_notice
        self._on_state = on_state
        self._on_up = on_up
        self._on_blocks = on_blocks
        self._throttle = throttle
        self._offered: dict[PackageId, Served] = {}
        self._control: Channel | None = None
        self._changed = asyncio.Event()
        self._look: dict[Purpose, asyncio.Event] = {}
        self._at: dict[Purpose, tuple[Channel, str]] = {}
        self._silent: set[Purpose] = set()
        self._final: SleapRtcError | None = None
        self._trouble = ""
        self._tasks: dict[Purpose, asyncio.Task[None]] = {}
        self._beside: dict[asyncio.Task[None], Channel | None] = {}
        self._packets: Packets | None = None

    async def __aenter__(self) -> Link:
        """Start to dial; requests wait for the connection."""
        self._keep("control")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Say goodbye and end all connections."""
        self._set("closed")
        if self._control is not None:
            await self._control.close()
        tasks = [*self._tasks.values(), *self._beside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def offer(self, package: PackageId, served: Served) -> None:
        """Let the peer fetch this package; opens a block connection where there is none."""
        self._offered[package] = served
        self._keep("blocks")

    def want_blocks(self) -> None:
        """Open a block connection where there is none, to fetch through ``on_blocks``."""
        self._keep("blocks")

    @property
    def proven(self) -> Authenticated | None:
        """What the handshake of the control connection has proven; None while there is none."""
        return None if self._control is None else self._control.proven

    @property
    def block_connections(self) -> int:
        """How many connections carry content now."""
        beside = sum(channel is not None for channel in self._beside.values())
        return ("blocks" in self._at) + beside

    async def packets(self) -> Packets | None:
        """What all connections for content have sent; None where their library doesn't tell.

        What one lost had sent in its last quarter of a second may be missing.
        """
        first = [self._at["blocks"][0]] if "blocks" in self._at else []
        total = self._packets
        for channel in [*first, *(each for each in self._beside.values() if each is not None)]:
            total = _sum(total, await channel.packets())
        return total

    def look_again(self) -> None:
        """The peer may be somewhere else now: dial at once instead of after the pause."""
        for look in self._look.values():
            look.set()
        for purpose in tuple(self._silent):
            self._give_up_ghost(purpose)

    async def connected(self, *, within_s: float = 30.0) -> None:
        """Wait for the control connection.

        Raises:
            PeerUnreachable: There is none in that time.
            NotPermitted: One side doesn't trust the other.
        """
        await self._channel(time.monotonic() + within_s, within_s)

    async def request(
        self,
        body: RequestBody,
        *,
        within_s: float = 30.0,
        id: str | None = None,  # noqa: A002
    ) -> ReplyBody:
        """Ask the peer, over as many connections as it takes.

        Args:
            body: What is asked; it must mean the same when it is asked again.
            within_s: Seconds for everything.
            id: The request's id; a new one by default.

        Raises:
            PeerUnreachable: No connection in that time.
            DeadlineExceeded: No answer in that time.
            NotPermitted: One side doesn't trust the other.
            SleapRtcError: The peer's own error.
        """
        request = id or str(uuid.uuid4())
        end = time.monotonic() + within_s
        while True:
            channel = await self._channel(end, within_s)
            left = end - time.monotonic()
            try:
                return await channel.request(body, id=request, within_s=max(left, 0.1))
            except LinkLost:
                if channel.open:
                    raise
                logger.debug("asking {} again over a new connection", self.name)
            except DeadlineExceeded as error:
                if time.monotonic() < end:  # it is the peer's own
                    raise
                what, seconds = f"An answer of {self.name}", f"{within_s:g}"
                raise DeadlineExceeded(what=what, seconds=seconds, hint=_SILENT) from error

    async def _channel(self, end: float, within_s: float) -> Channel:
        while True:
            if self._final is not None:
                raise self._final
            if self._control is not None and self._control.open:
                return self._control
            self._changed.clear()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                why = self._trouble or f"no connection within {within_s:g} s"
                if self._locate() is None:
                    why = "it is not online"
                raise PeerUnreachable(peer=self.name, why=why) from None

    def _set(self, state: State) -> None:
        if self.state not in (state, "closed"):
            self.state = state
            self._on_state(state)

    # ── keeping connections ──────────────────────────────────────────────────

    def _keep(self, purpose: Purpose) -> None:
        if purpose not in self._tasks and self.state != "closed":
            self._tasks[purpose] = asyncio.create_task(self._keep_dialling(purpose))

    async def _keep_dialling(self, purpose: Purpose) -> None:
        look = self._look.setdefault(purpose, asyncio.Event())
        pause = RETRY_FIRST_S
        while self.state != "closed":
            look.clear()
            try:
                channel, at = await self._dial(purpose, look)
                pause = RETRY_FIRST_S
                await self._work(purpose, channel, at)
            except (NetworkError, NotFound) as error:
                logger.debug("{} connection to {}: {}", purpose, self.name, error)
                self._trouble = error.details.get("why", error.message)
            except SleapRtcError as error:
                self._fail(error)
                return
            except Exception as error:  # noqa: BLE001 - whoever waits for the link must be told
                logger.exception("the {} connection to {} failed", purpose, self.name)
                self._fail(SleapRtcError(message=f"The connection failed: {error!r}."))
                return
            if purpose == "control":
                self._control = None
                self._set("down")
            with contextlib.suppress(TimeoutError):
                # Full jitter: many clients of a restarted worker don't come back at once.
                async with asyncio.timeout(random.uniform(RETRY_FIRST_S / 2, pause)):  # noqa: S311
                    await look.wait()
            pause = min(pause * 2, RETRY_MOST_S)

    async def _dial(
        self, purpose: Purpose, look: asyncio.Event, *, first: bool = True
    ) -> tuple[Channel, str]:
        """A channel, and the peer's connection to the server that it was dialled at."""
        presence = self._locate()
        if presence is None:
            raise PeerUnreachable(peer=self.name, why="it is not online")
        dialling = asyncio.create_task(
            self._switchboard.dial(
                room=self._room,
                to=presence.connection,
                device=presence.device,
                name=self.name,
                worker=self.name,
                session=self.session,
                purpose=purpose,
            )
        )
        try:
            await self._unless_moved(dialling, presence.connection, look)
            connection, proven = dialling.result()
            if proven.peer.role not in MAY_WORK:
                # Who is a worker is the server's word until here; what a role may do is an owner's.
                await connection.close()
                why = f"it is a {proven.peer.role} of the room, which can't be a worker in it"
                raise NotTrusted(who=f"{proven.peer.name}, as which {self.name} answers,", why=why)
        except BaseException:
            # It may have come about in the same instant, or does while it is being ended.
            dialling.add_done_callback(_abandon)
            raise
        channel = Channel(
            connection,
            proven,
            shelf=self._offered.get,
            on_notice=self._on_notice,
            on_life=lambda alive: self._life(purpose, alive),
            throttle=self._throttle,
            ways=self._switchboard.ways if first else None,
        )
        return channel, presence.connection

    async def _unless_moved(
        self, dialling: asyncio.Task[tuple[Peer, Authenticated]], at: str, look: asyncio.Event
    ) -> None:
        """Wait for a dial's end, and end it.

        Raises:
            PeerUnreachable: The peer is online somewhere else meanwhile.
        """
        looking = asyncio.create_task(self._moved(at, look))
        try:
            await asyncio.wait((dialling, looking), return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                raise PeerUnreachable(peer=self.name, why="it has come back meanwhile")
        finally:
            looking.cancel()
            dialling.cancel()
            await asyncio.gather(looking, dialling, return_exceptions=True)

    async def _moved(self, at: str, look: asyncio.Event) -> None:
        """Returns when the peer is online somewhere else; ``look`` stays set then."""
        while True:
            await look.wait()
            presence = self._locate()
            if presence is not None and presence.connection != at:
                return
            look.clear()

    async def _work(self, purpose: Purpose, channel: Channel, at: str) -> None:
        running = asyncio.create_task(channel.run())
        self._at[purpose] = channel, at
        try:
            if purpose == "control":
                if self._on_up is not None:
                    await self._on_up(channel)
                self._control = channel
                self._set("up")
                self._changed.set()
            else:
                self._on_blocks(channel.blocks, True)
                widening = asyncio.create_task(self._widen(channel))
                self._beside[widening] = None
                widening.add_done_callback(self._let_go)
                running.add_done_callback(lambda _: widening.cancel())
            await running
            if isinstance(channel.ended_by, NotPermitted):
                raise channel.ended_by
        finally:
            del self._at[purpose]
            self._silent.discard(purpose)
            try:
                if purpose == "blocks":
                    self._on_blocks(channel.blocks, False)
                    await self._count(channel)
            finally:
                if not running.done():
                    await channel.close("this side ends")
                    await running

    def _life(self, purpose: Purpose, alive: bool) -> None:
        if purpose == "control":
            self._set("up" if alive else "silent")
        if alive:
            self._silent.discard(purpose)
        else:
            self._silent.add(purpose)
            self._give_up_ghost(purpose)

    def _give_up_ghost(self, purpose: Purpose) -> None:
        """End a silent connection whose peer has signed in anew since it was made."""
        if purpose not in self._at:  # one of several for content, and not the first
            return
        channel, at = self._at[purpose]
        presence = self._locate()
        if presence is not None and presence.connection != at:
            channel.abandon("it has come back as another process")

    # ── more connections for content ─────────────────────────────────────────

    async def _widen(self, first: Channel) -> None:
        """Have as many block connections beside the first one as make content faster."""
        widening, moved = Widening(), {first: first.moved}
        beside: dict[asyncio.Task[None], asyncio.Event] = {}
        try:
            while True:
                await asyncio.sleep(WINDOW_S)
                ended = [task for task in beside if task.done()]
                if ended:
                    widening.lost()
                    beside = {task: left for task, left in beside.items() if not task.done()}
                open_ = [first, *(c for c in map(self._beside.get, beside) if c is not None)]
                before, moved = moved, {channel: channel.moved for channel in open_}
                passed = sum(now - before.get(channel, now) for channel, now in moved.items())
                rate = passed / WINDOW_S
                quickest_s = recent_s = None
                if self._control is not None:
                    quickest_s, recent_s = self._control.quickest_s, self._control.recent_s
                    if passed:
                        self._control.ping_often()
                wanted = widening.window(
                    rate,
                    far=is_far(quickest_s),
                    ready=len(open_),
                    crowded=is_crowded(quickest_s, recent_s),
                )
                wanted -= 1
                while len(beside) > wanted:
                    task, unwanted = beside.popitem()
                    if self._beside.get(task) is None:
                        task.cancel()  # it hasn't come about yet
                    unwanted.set()
                while len(beside) < wanted:
                    unwanted = asyncio.Event()
                    task = asyncio.create_task(self._work_beside(unwanted))
                    self._beside[task] = None
                    task.add_done_callback(self._let_go)
                    beside[task] = unwanted
        finally:
            for task in beside:
                task.cancel()

    async def _work_beside(self, unwanted: asyncio.Event) -> None:
        """One more block connection, until it ends, is cancelled, or isn't wanted any more."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        try:
            channel, _ = await self._dial("blocks", asyncio.Event(), first=False)
        except SleapRtcError as error:
            logger.debug("one more connection to {}: {}", self.name, error)
            return
        running = asyncio.create_task(channel.run())
        self._beside[task] = channel
        logger.debug("one more connection to {} for content", self.name)
        self._on_blocks(channel.blocks, True)
        leaving = asyncio.create_task(unwanted.wait())
        try:
            await asyncio.wait((running, leaving), return_when=asyncio.FIRST_COMPLETED)
            channel.blocks.leaving = not running.done()
        finally:
            leaving.cancel()
            self._on_blocks(channel.blocks, False)
            try:
                if channel.blocks.leaving:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(channel.finish(), FINISH_S)
                self._beside[task] = None
                await self._count(channel)
            finally:
                await channel.close("fewer connections are enough")
                await running

    async def _count(self, channel: Channel) -> None:
        """Keep what a connection for content has sent; it ends."""
        packets = await channel.packets()
        # Only now: others may have ended meanwhile.
        self._packets = _sum(self._packets, packets)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._beside.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            logger.opt(exception=task.exception()).error("content of {}", self.name)

    def _fail(self, error: SleapRtcError) -> None:
        """Nothing that waiting could mend: whoever asks is told."""
        self._final = error
        self._set("closed")
        self._changed.set()


def _sum(some: Packets | None, more: Packets | None) -> Packets | None:
    return some + more if some and more else some or more


def _abandon(dialling: asyncio.Task[tuple[Peer, Authenticated]]) -> None:
    """End a connection that came about and that nobody has taken."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result()[0].abandon("it isn't wanted any more")
