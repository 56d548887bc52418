"""Two peers that have told each other where they are try to reach each other.

Each listens, on TCP and on a Unix socket, and each connects to what the other
named; every connection is proven by both sides, whichever made it, and the
fetcher says which one is used. Everything ends after `WITHIN_S` seconds, and a
listener lets in one peer, once.

On the Unix socket there is no TLS: what passes stays within the kernel, the
socket lies in a folder of this user alone, and both sides prove themselves with
secrets that only the link carried. To connect over it is also what proves that
both are on one machine.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import shutil
import socket
import ssl
import stat
import struct
import tempfile
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from loguru import logger

from sleap_rtc.errors import LinkLost, PeerUnreachable, ProtocolError
from sleap_rtc.protocol import direct
from sleap_rtc.transports.direct.addresses import own_hosts, tried
from sleap_rtc.transports.direct.identity import Identity, is_peer
from sleap_rtc.transports.direct.wire import Wire, tune, until_ready

MAX_AT_ONCE: Final = 8
"""Connections to a listener that may be unproven at a time; more are closed at once."""
MAX_TRIES: Final = 64
"""Connections that a listener takes at all; whoever makes so many has found it by chance."""
PROVEN_WITHIN_S: Final = 4.0
"""Seconds that a connection has to prove itself."""
FOLLOWS_S: Final = 0.05
"""Seconds between the tries of one address and the next: the first that works is enough."""
ANSWERER_WAITS_S: Final = 0.3
"""Seconds by which the side that serves tries later: one connection is wanted, not two."""

_UNIX: Final = hasattr(socket, "AF_UNIX")
_CREDENTIALS: Final = struct.Struct("iII")


class Met(msgspec.Struct, frozen=True):
    """A proven connection, and how it came about, in words for the log."""

    wire: Wire
    how: str
    local: bool


class Door:
    """Listens for one peer. Use it as a context manager; it is shut at the end.

    Args:
        tcp: Whether to listen on TCP.
        local: Whether to listen on a Unix socket.
    """

    def __init__(self, *, tcp: bool, local: bool) -> None:
        self.path = ""
        self._folder: Path | None = None
        self.listeners: list[socket.socket] = []
        self.addresses: tuple[direct.Address, ...] = ()
        if tcp:
            self._listen_tcp()
        if local and _UNIX:
            self._listen_unix()

    def _listen_tcp(self) -> None:
        hosts = own_hosts()
        for family, any_host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - one peer, proven, for ten seconds
            mine = [host for host in hosts if (":" in host) == (family is socket.AF_INET6)]
            if not mine:
                continue
            try:
                listener = socket.create_server((any_host, 0), family=family, backlog=MAX_AT_ONCE)
            except OSError as error:
                logger.debug("not listening on {}: {}", any_host, error)
                continue
            self.listeners.append(listener)
            port = listener.getsockname()[1]
            self.addresses += tuple(direct.Address(host=host, port=port) for host in mine)

    def _listen_unix(self) -> None:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="sleap-rtc-"))
        except OSError as error:
            logger.debug("no folder for a Unix socket: {}", error)
            return
        path = str(self._folder / "direct")
        if len(os.fsencode(path)) > direct.MAX_PATH:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listeners.append(listener)
        try:
            listener.bind(path)
            listener.listen(MAX_AT_ONCE)
        except OSError as error:
            logger.debug("not listening on a Unix socket: {}", error)
            return
        self.path = path

    def close(self) -> None:
        """Let nobody in any more."""
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Ours(msgspec.Struct, frozen=True):
    """What this side brings to a meeting: it is reachable from when this is made.

    Attributes:
        identity: This process's.
        end: What the peer is told.
        door: Where it listens; to be closed.
        tcp: Whether TCP is used, both ways.
        local: Whether a Unix socket is.
    """

    identity: Identity
    end: direct.End
    door: Door
    tcp: bool
    local: bool


class Meeting:
    """One attempt of one side.

    Args:
        ours: What this side brings.
        theirs: What the peer told over the link.
        session: The link's id.
        fetches: Whether this side is the one that asked.
        peer: Names the peer in errors.
    """

    def __init__(
        self, ours: Ours, theirs: direct.End, *, session: str, fetches: bool, peer: str
    ) -> None:
        self._ours, self._theirs, self._peer = ours, theirs, peer
        self._fetches = fetches
        pair = (ours.end, theirs) if fetches else (theirs, ours.end)
        self._connects, self._listens = direct.proofs(session, *pair)
        self._certificate = bytes.fromhex(theirs.certificate)
        self._won: asyncio.Future[Met] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._wires: list[Wire] = []
        self._chosen = False
        self._unproven = 0
        self._tries = 0

    async def meet(self) -> Met:
        """The connection that the fetcher chose.

        Raises:
            PeerUnreachable: None came about in time.
            ProtocolError: What the peer told can't be.
        """
        used: Wire | None = None
        try:
            met = await self._met()
            used = met.wire
        finally:
            for wire in self._wires:
                if wire is not used:
                    wire.close()
        return met

    async def _met(self) -> Met:
        try:
            async with asyncio.timeout(direct.WITHIN_S):
                await self._prepare()
                for listener in self._ours.door.listeners:
                    self._spawn(self._let_in(listener))
                self._spawn(self._knock())
                return await self._won
        except TimeoutError:
            why = f"neither side reached the other within {direct.WITHIN_S:g} s"
            raise PeerUnreachable(peer=self._peer, why=why) from None
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _prepare(self) -> None:
        tls = partial(self._ours.identity.tls, peer=self._certificate)
        self._contexts[False], self._contexts[True] = await asyncio.gather(
            *(asyncio.to_thread(tls, listens=listens) for listens in (False, True))
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).warning("a direct connection failed")

    # ── being reached ────────────────────────────────────────────────────────

    async def _let_in(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while self._tries < MAX_TRIES:
            await until_ready(listener.fileno())
            # Not by asyncio: cancelled at the wrong moment, it forgets whom it let in, unclosed.
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # whoever knocked has gone
            self._tries += 1
            if self._unproven >= MAX_AT_ONCE:
                sock.close()
                continue
            self._unproven += 1
            wire = self._wire(sock)
            how = "on this machine" if is_local(sock) else "it connected to this machine"
            self._spawn(self._try(wire, listens=True, how=how))
        logger.warning("too many connections for one peer, no more are taken")

    # ── reaching ─────────────────────────────────────────────────────────────

    async def _knock(self) -> None:
        if not self._fetches:
            await asyncio.sleep(ANSWERER_WAITS_S)
        pause = 0.0
        if self._theirs.path and self._ours.local and _UNIX:
            self._spawn(self._connect_unix(self._theirs.path))
            pause = FOLLOWS_S
        if not self._ours.tcp:
            return
        for address in tried(self._theirs.addresses):
            await asyncio.sleep(pause)
            self._spawn(self._connect_tcp(address))
            pause = FOLLOWS_S

    async def _connect_tcp(self, address: direct.Address) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        how = f"over {address.host}, port {address.port}"
        await self._connect(family, (address.host, address.port), how)

    async def _connect_unix(self, path: str) -> None:
        if await asyncio.to_thread(_is_private_socket, path):
            await self._connect(socket.AF_UNIX, path, "on this machine")

    async def _connect(self, family: int, where: tuple[str, int] | str, how: str) -> None:
        try:
            wire = self._wire(socket.socket(family, socket.SOCK_STREAM))
            await asyncio.get_running_loop().sock_connect(wire.sock, where)
        except OSError as error:
            logger.debug("{} is not reached {}: {}", self._peer, how, error)
            return
        await self._try(wire, listens=False, how=how)

    def _wire(self, sock: socket.socket) -> Wire:
        sock.setblocking(False)
        wire = Wire(sock, peer=self._peer)
        self._wires.append(wire)
        return wire

    # ── proving ──────────────────────────────────────────────────────────────

    async def _try(self, wire: Wire, *, listens: bool, how: str) -> None:
        local = is_local(wire.sock)
        try:
            async with asyncio.timeout(PROVEN_WITHIN_S):
                if local and not _is_same_user(wire.sock):
                    raise ProtocolError(peer=self._peer, why="another user is at the Unix socket")
                if not local:
                    await self._secure(wire, listens=listens)
                await self._prove(wire, listens=listens)
                await self._choose(wire)
        except (LinkLost, ProtocolError, OSError) as error:  # a TimeoutError is one
            wire.close()
            logger.debug("a connection with {} ({}) came to nothing: {!r}", self._peer, how, error)
        else:
            if self._won.done():
                wire.close()
            else:
                tune(wire.sock)
                self._won.set_result(Met(wire, how, local))
        finally:
            self._unproven -= listens

    async def _secure(self, wire: Wire, *, listens: bool) -> None:
        secured = await wire.secure(self._contexts[listens], listens=listens)
        if not is_peer(secured, self._certificate):
            raise ProtocolError(peer=self._peer, why="another certificate than it announced")

    async def _prove(self, wire: Wire, *, listens: bool) -> None:
        if listens:
            await self._expect(wire, self._connects)
            await wire.send_all(self._listens)
        else:
            await wire.send_all(self._connects)
            await self._expect(wire, self._listens)

    async def _choose(self, wire: Wire) -> None:
        """Agree that this connection is used; the fetcher's word counts."""
        if not self._fetches:
            if await wire.read_exactly(len(direct.USE)) != direct.USE:
                raise ProtocolError(peer=self._peer, why="an unknown use of a direct connection")
            return
        if self._chosen:
            raise LinkLost(peer=self._peer, why="another connection was faster")
        self._chosen = True
        try:
            await wire.send_all(direct.USE)
        except BaseException:
            self._chosen = False
            raise

    async def _expect(self, wire: Wire, proof: bytes) -> None:
        if not hmac.compare_digest(await wire.read_exactly(len(proof)), proof):
            raise ProtocolError(peer=self._peer, why="a wrong proof on a direct connection")


def announce(identity: Identity, *, tcp: bool, local: bool) -> Ours:
    """Begin to listen, and say where. Blocking, shortly.

    Args:
        identity: This process's.
        tcp: Whether to be reached over TCP.
        local: Whether to be reached on this machine.
    """
    door = Door(tcp=tcp, local=local)
    end = direct.End(
        certificate=identity.certificate.hex(),
        secret=secrets.token_hex(32),
        addresses=door.addresses[: direct.MAX_ADDRESSES],
        path=door.path,
    )
    return Ours(identity=identity, end=end, door=door, tcp=tcp, local=local)


def is_local(sock: socket.socket) -> bool:
    """Whether a connection can't leave this machine."""
    return _UNIX and sock.family == socket.AF_UNIX


def _is_private_socket(path: str) -> bool:
    """Whether a socket is one of this user's own, where nobody else could have put it.

    The path is the peer's word: it must not make this device talk to other programs here.
    """
    place = Path(path)
    if place.name != "direct" or not place.parent.name.startswith("sleap-rtc-"):
        return False
    try:
        folder, found = place.parent.lstat(), place.lstat()
    except (OSError, ValueError):
        return False
    mine = os.getuid()
    private = stat.S_ISDIR(folder.st_mode) and not stat.S_IMODE(folder.st_mode) & 0o077
    return private and stat.S_ISSOCK(found.st_mode) and folder.st_uid == found.st_uid == mine


def _is_same_user(sock: socket.socket) -> bool:
    """Whether the other end of a Unix socket is a process of this user, where that can be told."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # the folder's rights say so already
    told = sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.getuid())
