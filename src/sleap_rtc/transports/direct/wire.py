"""A connected socket, with TLS or without.

It is first used on the event loop, until the peer is proven, and never blocks.
Then it belongs to one thread, which waits in it for a moment at a time: a thread
with plain sockets moves twice what asyncio does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from sleap_rtc.errors import LinkLost

T = TypeVar("T")

MOMENT_S: Final = 0.5
"""Seconds that a call of the thread waits at most."""
ROW: Final = 16
"""Reads or writes of content between two looks at anything else."""
FAR_S: Final = 0.002
"""Seconds of a round trip from which BBR is taken: random loss hardly slows it. On short ways the
system's own choice is faster."""
_RTT: Final = struct.Struct("=68xI76xI")
"""Where Linux tells the round trip in ``struct tcp_info``, smoothed and the least, in microseconds.
The other side may take 40 ms to acknowledge: the least is the way's own."""
_NOT_NOW: Final = (BlockingIOError, InterruptedError, TimeoutError, ssl.SSLWantReadError)


class Wire:
    """One end of a connection.

    Args:
        sock: Connected and non-blocking, the TLS handshake perhaps still to be done.
        peer: Names the peer in errors.
    """

    def __init__(self, sock: socket.socket, *, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self._needs_write = False
        self._tcp = sock.family != getattr(socket, "AF_UNIX", None)
        self._gathers = False
        # From the beginning: small words that follow each other would wait for an acknowledgement
        # which the other side puts off, 40 ms for every connection.
        self._send_at_once(on=True)

    def read(self, into: memoryview) -> int:
        """Bytes that have arrived, 0 when there are none now.

        Raises:
            LinkLost: The connection ended.
        """
        self._needs_write = False
        try:
            count = self.sock.recv_into(into)
        except _NOT_NOW:
            return 0
        except ssl.SSLWantWriteError:
            self._needs_write = True
            return 0
        except (OSError, ValueError) as error:
            raise self.lost(error) from None
        if not count:
            raise LinkLost(peer=self.peer, why="the direct connection was closed")
        return count

    def write(self, data: memoryview) -> int:
        """How many bytes were taken, 0 when there is no room now.

        Raises:
            LinkLost: The connection ended.
        """
        try:
            return self.sock.send(data)
        except (*_NOT_NOW, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError) as error:
            raise self.lost(error) from None

    def read_row(self, into: memoryview) -> int:
        """The same for content, of which there is a lot: as many reads as a row has.

        TLS gives 16 KiB at a time, so what is done between two reads counts.
        """
        at, end, receive = 0, len(into), self.sock.recv_into
        self._needs_write = False
        try:
            for _ in range(ROW):
                count = receive(into[at:])
                if not count:
                    raise LinkLost(peer=self.peer, why="the direct connection was closed")
                at += count
                if at == end:
                    break
        except _NOT_NOW:
            pass
        except ssl.SSLWantWriteError:
            self._needs_write = True
        except (OSError, ValueError) as error:
            raise self.lost(error) from None
        return at

    def write_row(self, data: memoryview) -> int:
        """The same for writing."""
        at, end, send = 0, len(data), self.sock.send
        try:
            for _ in range(ROW):
                at += send(data[at:])
                if at == end:
                    break
        except (*_NOT_NOW, ssl.SSLWantWriteError):
            pass
        except (OSError, ValueError) as error:
            raise self.lost(error) from None
        return at

    def gather(self) -> None:
        """From now on only full packets leave, as long as others are on their way.

        A record of TLS is no whole number of packets: with a short one behind each there are seven
        in a hundred more.
        """
        if not self._gathers:
            self._gathers = True
            self._send_at_once(on=False)

    def push(self) -> None:
        """What is left leaves now, and so does all that is written from now on."""
        if self._gathers:
            self._gathers = False
            self._send_at_once(on=True)

    def _send_at_once(self, *, on: bool) -> None:
        if self._tcp:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, on)

    def lost(self, error: Exception) -> LinkLost:
        """The error for what the system says."""
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return LinkLost(peer=self.peer, why=f"the direct connection ended ({why})")

    def wait_in_calls(self) -> None:
        """From now on a call waits for a moment, and tells 0 when nothing could be done."""
        self.sock.settimeout(MOMENT_S)

    @property
    def has_more(self) -> bool:
        """Whether something was read and decrypted that nobody has taken yet."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def interrupt(self) -> None:
        """End it for both sides, from any thread: calls that wait in it return."""
        with contextlib.suppress(OSError):
            # Not TLS's own, which takes the state away from under the thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, without a goodbye. More than once is fine."""
        with contextlib.suppress(OSError):
            self.sock.close()

    # ── on the event loop ────────────────────────────────────────────────────

    async def secure(self, context: ssl.SSLContext, *, listens: bool) -> ssl.SSLSocket:
        """Put TLS on it.

        Raises:
            LinkLost: The handshake failed.
        """
        try:
            secured = context.wrap_socket(
                self.sock, server_side=listens, do_handshake_on_connect=False
            )
            self.sock = secured
            await self._until(secured.do_handshake)
        except (OSError, ValueError) as error:
            raise self.lost(error) from None
        return secured

    async def send_all(self, data: bytes) -> None:
        """Send a few bytes."""
        left = memoryview(data)
        while left:
            count = self.write(left)
            left = left[count:]
            if not count:
                await self._ready(writing=True)

    async def read_exactly(self, size: int) -> bytes:
        """A few bytes."""
        found = bytearray(size)
        view, at = memoryview(found), 0
        while at < size:
            count = self.read(view[at:])
            at += count
            if not count:
                await self._ready(writing=self._needs_write)
        return bytes(found)

    async def _until(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._ready(writing=False)
            except ssl.SSLWantWriteError:
                await self._ready(writing=True)

    async def _ready(self, *, writing: bool) -> None:
        fd = self.sock.fileno()
        if fd < 0:
            raise LinkLost(peer=self.peer, why="the direct connection was closed")
        await until_ready(fd, writing=writing)


async def until_ready(fd: int, *, writing: bool = False) -> None:
    """Wait until something can be read from a file descriptor, or accepted, or written to it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)


def tune(sock: socket.socket) -> None:
    """Set what a connection that moves content needs, where the system has it."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return
    # An idle connection whose other end is gone ends by itself, within half a minute.
    options = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    far = round_trip_s(sock)
    if far is not None and far >= FAR_S:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")


def round_trip_s(sock: socket.socket) -> float | None:
    """Seconds of a round trip as the system measured it, None where it doesn't tell."""
    if sys.platform != "linux":
        return None
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        microseconds: int = min(_RTT.unpack_from(told))
    except (OSError, struct.error):
        return None
    return microseconds / 1e6
