"""A shortcut of one block connection: content past WebRTC while the peers reach each other.

It is asked for once enough content is wanted, and used when it is there; until
then, and when it is lost, content goes over the block connection::

    none ──enough is asked for──► opening ──met──► open ──lost──► none, tried again in 5 s
     ▲                               │
     └── tried again in 30 s to 10 min ── no way

It never lives longer than the block connection, so whatever ends that one, a
removed member above all, ends this one too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from loguru import logger

from sleap_rtc.errors import (
    Conflict,
    NotPermitted,
    ProtocolError,
    SleapRtcError,
)
from sleap_rtc.protocol import direct
from sleap_rtc.transfer.choice import Kind, Reach, Situation, Wish, leaves_open, plan
from sleap_rtc.transports.blocks import Shelf
from sleap_rtc.transports.direct.fetching import FetchLane
from sleap_rtc.transports.direct.identity import Identity
from sleap_rtc.transports.direct.meeting import Meeting, Met, Ours, announce
from sleap_rtc.transports.direct.serving import ServeLane
from sleap_rtc.transports.throttle import Throttle

RETRY_LOST_S: Final = 5.0
RETRY_FIRST_S: Final = 30.0
RETRY_MOST_S: Final = 600.0
"""Seconds before a shortcut is tried again: after one that worked, and after one that didn't."""
ANSWER_EVERY_S: Final = 1.0
"""Seconds between two announcements that a peer gets for one block connection, at least."""
MAX_MEETINGS: Final = 16
"""Announcements of this process that may be open at a time; others are refused meanwhile."""


class Ways:
    """What this process does for direct connections. For one event loop.

    Args:
        wish: The user's word on which way content is to go.
    """

    def __init__(self, wish: Wish = "auto") -> None:
        self.wish: Wish = wish
        self._identity: Identity | None = None
        self._making = asyncio.Lock()
        self._meetings = 0

    @property
    def tcp(self) -> bool:
        """Whether direct connections over a network are wanted."""
        return leaves_open(self.wish, "direct")

    @property
    def local(self) -> bool:
        """Whether connections within one machine are."""
        return leaves_open(self.wish, "local")

    @property
    def required(self) -> bool:
        """Whether the user asked for just that: then it is waited for."""
        return self.wish in ("direct", "local")

    async def prepare(self) -> Identity:
        """This process's identity: it takes a while, so both sides begin before they need it."""
        async with self._making:
            if self._identity is None:
                self._identity = await asyncio.to_thread(Identity)
        return self._identity

    async def announce(self) -> Ours:
        """Begin to listen for one peer; to be given back to :meth:`finish`.

        Raises:
            NotPermitted: The user wants no direct connections.
            Conflict: Too many are being made.
        """
        if not (self.tcp or self.local):
            raise NotPermitted(message="Direct connections are turned off there.")
        if self._meetings >= MAX_MEETINGS:
            raise Conflict(message="Too many direct connections are being made there.")
        self._meetings += 1
        try:
            return announce(await self.prepare(), tcp=self.tcp, local=self.local)
        except BaseException:
            self._meetings -= 1
            raise

    def finish(self, ours: Ours) -> None:
        """Let nobody in any more."""
        self._meetings -= 1
        ours.door.close()


class Shortcut:
    """What one block connection has of direct connections, both ways.

    Args:
        ways: This process's.
        session: The link's id.
        peer: Names the peer in errors and logs.
        able: Whether the peer knows of direct connections.
        ask: Asks the peer.
        shelf: What the peer may fetch.
        throttle: Limits what is sent of content.
        clock: Seconds on a clock that never goes back.

    Attributes:
        kind: What the newest way to fetch is: within this machine, or over a network.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        session: str,
        peer: str,
        able: bool,
        ask: Callable[[direct.OpenDirect], Awaitable[direct.DirectOpened]],
        shelf: Shelf,
        throttle: Throttle | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ways = ways
        self._session = session
        self._peer = peer
        self._able = able
        self._ask = ask
        self._shelf = shelf
        self._throttle = throttle
        self._clock = clock
        self._asked = 0
        self._refused = False
        self._next_at = 0.0
        self._pause = RETRY_FIRST_S
        self._closed = False
        self.kind: Kind = "direct"
        self._fetch: FetchLane | None = None
        self._serve: ServeLane | None = None
        self._announcing = False
        self._answer_at = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[Identity] | None = None
        if able and (ways.tcp or ways.local):
            self._preparing = asyncio.create_task(ways.prepare())

    # ── fetching ─────────────────────────────────────────────────────────────

    async def source(self, size: int) -> FetchLane | None:
        """The way to fetch ``size`` bytes more; None for the block connection.

        It doesn't wait for a way that is being made, unless the user asked for just that.
        """
        if self._fetch is not None:
            return self._fetch
        self._asked += size
        if self._opening is None and self._is_due():
            self._opening = asyncio.create_task(self._open())
        if self._ways.required and self._opening is not None:
            await asyncio.wait((self._opening,))
        return self._fetch

    def _is_due(self) -> bool:
        if self._closed or self._clock() < self._next_at:
            return False
        reach: Reach = "old" if not self._able else "refused" if self._refused else "untried"
        wish = self._ways.wish
        chosen = plan(Situation(size=self._asked, wish=wish, reach=reach))
        return chosen.uses("local") or chosen.uses("direct")

    async def _open(self) -> None:
        # Whatever goes wrong, even here, it isn't tried again at once.
        self._next_at = self._clock() + self._pause
        try:
            ours = await self._ways.announce()
            try:
                opened = await self._ask(direct.OpenDirect(end=ours.end))
                met = await self._meet(ours, opened.end, fetches=True)
            finally:
                self._ways.finish(ours)
            lane = FetchLane(
                met.wire, name=self._peer, on_end=lambda error: self._fetch_ended(lane, error)
            )
            lane.start()
        except (SleapRtcError, OSError) as error:
            self._not_opened(error)
        except Exception:  # noqa: BLE001 - content goes over the link, whatever happens here
            logger.exception("no direct connection with {}", self._peer)
        else:
            self._fetch, self.kind = lane, "local" if met.local else "direct"
            self._pause = RETRY_FIRST_S
            logger.info("content of {} comes directly, {}", self._peer, met.how)
        finally:
            self._opening = None

    def _not_opened(self, error: SleapRtcError | OSError) -> None:
        self._refused = isinstance(error, NotPermitted | ProtocolError)
        self._pause = min(self._pause * 2, RETRY_MOST_S)
        level = "WARNING" if self._ways.required else "INFO"
        logger.bind(code=getattr(error, "code", "disk")).log(
            level, "content of {} goes over the link, not directly: {}", self._peer, error
        )

    def _fetch_ended(self, lane: FetchLane, error: SleapRtcError) -> None:
        if self._fetch is lane:
            self._fetch = None
        self._refused |= isinstance(error, ProtocolError)
        self._next_at = self._clock() + RETRY_LOST_S
        if not self._closed:
            logger.bind(code=error.code).info(
                "no content of {} comes directly any more: {}", self._peer, error
            )

    # ── serving ──────────────────────────────────────────────────────────────

    async def answer(self, asked: direct.OpenDirect) -> direct.DirectOpened:
        """The peer wants to fetch directly.

        Raises:
            NotPermitted: The user here wants no direct connections.
            Conflict: One is being made already.
        """
        now = self._clock()
        if now < self._answer_at or self._announcing or self._answering is not None:
            raise Conflict(message="A direct connection is being made already.")
        self._answer_at = now + ANSWER_EVERY_S
        self._announcing = True
        try:
            ours = await self._ways.announce()
        finally:
            self._announcing = False
        self._answering = asyncio.create_task(self._let_fetch(ours, asked.end))
        return direct.DirectOpened(end=ours.end)

    async def _let_fetch(self, ours: Ours, theirs: direct.End) -> None:
        try:
            try:
                met = await self._meet(ours, theirs, fetches=False)
            finally:
                self._ways.finish(ours)
            lane = ServeLane(
                met.wire,
                shelf=self._shelf,
                throttle=self._throttle,
                on_end=lambda error: self._serve_ended(lane, error),
            )
            lane.start()
            before, self._serve = self._serve, lane
            logger.info("content goes to {} directly, {}", self._peer, met.how)
            if before is not None:  # the peer has given that one up
                await before.close()
        except (SleapRtcError, OSError) as error:
            logger.debug("no content goes to {} directly: {}", self._peer, error)
        except Exception:  # noqa: BLE001 - see above
            logger.exception("no direct connection with {}", self._peer)
        finally:
            self._answering = None

    def _serve_ended(self, lane: ServeLane, error: SleapRtcError) -> None:
        if self._serve is lane:
            self._serve = None
        if not self._closed:
            logger.bind(code=error.code).info(
                "no content goes to {} directly any more: {}", self._peer, error
            )

    # ── both ─────────────────────────────────────────────────────────────────

    async def _meet(self, ours: Ours, theirs: direct.End, *, fetches: bool) -> Met:
        meeting = Meeting(ours, theirs, session=self._session, fetches=fetches, peer=self._peer)
        return await meeting.meet()

    async def close(self) -> None:
        """End everything."""
        self._closed = True
        for task in (self._preparing, self._opening, self._answering):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        for lane in (self._fetch, self._serve):
            if lane is not None:
                await lane.close()
