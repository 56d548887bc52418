"""Who is linked to this worker, what they offer, and what they may fetch.

A link is a session of several connections. What a peer was granted, and what it
offers, belongs to the session and ends with its control connection; a peer that
comes back says it again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from loguru import logger

from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.domain.ids import DeviceId, PackageId, called
from sleap_rtc.domain.places import Role
from sleap_rtc.errors import Conflict, NotPermitted
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.blocks import BlockClient, Served
from sleap_rtc.transports.channel import Channel, Handler, no_requests
from sleap_rtc.transports.connection import Connection
from sleap_rtc.transports.direct.shortcut import Ways
from sleap_rtc.transports.throttle import Throttle

MAX_GRANTED: Final = 64
"""Packages that one peer may fetch from at a time."""
MAX_OFFERED: Final = 1_024
"""Packages that one peer may offer at a time: those of a few hundred jobs."""


class Asker(msgspec.Struct, frozen=True):
    """Who asks: proven by the handshake.

    Attributes:
        device: Its key.
        name: What it is called in the room.
        role: Its role now.
        session: The link's id.
        worker: The key by which this worker has proven itself to it.
    """

    device: DeviceId
    name: str
    role: Role
    session: str
    worker: DeviceId

    @property
    def called(self) -> str:
        """As others are told of it."""
        return called(self.name, self.device)


class _Session:
    """One peer's link."""

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.controls: set[Channel] = set()
        self.blocks: set[BlockClient] = set()
        self.offered: Counter[PackageId] = Counter()
        self.granted: dict[PackageId, Served] = {}


class Peers:
    """All links of this worker. For one event loop.

    Args:
        handler: Answers requests.
        on_gone: Called with the session's id when its last control connection has ended.
        on_source: Called when there is something to fetch that wasn't before.
        throttle: Limits what is sent of content, to all of them together.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        on_gone: Callable[[str], None],
        on_source: Callable[[], None] = lambda: None,
        throttle: Throttle | None = None,
    ) -> None:
        self._handler = handler
        self._throttle = throttle
        self._on_gone = on_gone
        self._on_source = on_source
        self._sessions: dict[str, _Session] = {}
        self._feeds: list[tuple[PackageId, Sources]] = []
        self.ways: Ways | None = None
        """This process's direct connections, once it is online."""

    async def accept(self, connection: Connection, proven: Authenticated) -> None:
        """Serve a connection until it ends."""
        asker = asker_of(proven)
        session = self._session(asker)
        control = proven.purpose == "control"
        channel = Channel(
            connection,
            proven,
            handler=self._handler if control else no_requests,
            shelf=session.granted.get,
            throttle=self._throttle,
            ways=self.ways,
        )
        logger.info("{} ({}) connected: {}", asker.called, asker.role, proven.purpose)
        try:
            if control:
                session.controls.add(channel)
            else:
                session.blocks.add(channel.blocks)
                self._match(session)
            await channel.run()
        finally:
            logger.info("{} disconnected: {}: {}", asker.called, proven.purpose, channel.ended_by)
            session.controls.discard(channel)
            if channel.blocks in session.blocks:
                session.blocks.discard(channel.blocks)
                for _, sources in self._feeds:
                    sources.remove(channel.blocks)
            if control and not session.controls:
                session.offered.clear()
                session.granted.clear()
                self._on_gone(asker.session)
            if not session.controls and not session.blocks:
                self._sessions.pop(asker.session, None)

    def offered(self, asker: Asker, package: PackageId) -> None:
        """A peer can be asked for a package from now on.

        Raises:
            Conflict: It offers too many already.
        """
        session = self._session(asker)
        if package not in session.offered and len(session.offered) >= MAX_OFFERED:
            raise Conflict(
                message=f"{MAX_OFFERED} packages are offered over this connection already.",
                hint="Connect anew, and offer what is still needed.",
            )
        session.offered[package] += 1
        self._match(session)

    @contextlib.contextmanager
    def offering(self, asker: Asker, package: PackageId) -> Iterator[None]:
        """A peer can be asked for a package until the block ends; so any number, one by one.

        Raises:
            Conflict: It offers too many already.
        """
        session = self._session(asker)
        self.offered(asker, package)
        try:
            yield
        finally:
            # Another push of it, or a job that needs it, may have offered it as well.
            session.offered[package] -= 1
            if session.offered[package] <= 0:
                del session.offered[package]

    def has_source(self, package: PackageId) -> bool:
        """Whether a package can be fetched from somebody now."""
        return any(
            package in session.offered and session.blocks for session in self._sessions.values()
        )

    def grant(self, asker: Asker, package: PackageId, served: Served) -> None:
        """A peer may fetch a package from now on."""
        granted = self._session(asker).granted
        granted.pop(package, None)
        granted[package] = served
        if len(granted) > MAX_GRANTED:  # files are open for each: the oldest must be asked for anew
            del granted[next(iter(granted))]

    def is_granted(self, package: PackageId) -> bool:
        """Whether some peer may fetch a package now."""
        return any(package in session.granted for session in self._sessions.values())

    @contextlib.contextmanager
    def sources(self, package: PackageId) -> Iterator[Sources]:
        """Every peer that offers the package, as they come and go."""
        feed = (package, Sources())
        self._feeds.append(feed)
        try:
            for session in self._sessions.values():
                self._match(session, new=False)
            yield feed[1]
        finally:
            self._feeds.remove(feed)

    def _session(self, asker: Asker) -> _Session:
        session = self._sessions.get(asker.session)
        if session is None:
            session = self._sessions[asker.session] = _Session(asker)
        elif session.asker.device != asker.device:
            # A session's id is no secret to the server: only the same device may join it.
            raise NotPermitted(message="That session belongs to another device.")
        return session

    def _match(self, session: _Session, *, new: bool = True) -> None:
        for package, sources in self._feeds:
            if package in session.offered:
                for client in session.blocks:
                    if client not in sources.current.values():
                        sources.add(client)
        if new and session.offered and session.blocks:
            self._on_source()


def asker_of(proven: Authenticated) -> Asker:
    """Who is at the other end of a connection."""
    peer = proven.peer
    return Asker(
        device=peer.device,
        name=peer.name,
        role=peer.role,
        session=proven.session,
        worker=proven.own,
    )
