"""The STUN responder: one datagram in, at most one out, nothing remembered.

The source of a datagram may be forged, so an answer could be sent to somebody
who never asked. Answers are small (at most twice a request), and an address
gets only so many.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final, Self, cast

from loguru import logger

from sleap_rtc.net.limits import SourceLimits, TokenBucket
from sleap_rtc.protocol.stun import answer
from sleap_rtc.server.sockets import listen

SOURCE_RATE: Final = 20.0
"""Answers per second to one address; a lab behind one NAT shares it."""
SOURCE_BURST: Final = 200.0
"""Answers to one address at once."""
TOTAL_RATE: Final = 2_000.0
"""Answers per second in all; as many at once."""


class StunServer:
    """Answers binding requests on the addresses of one host."""

    def __init__(self, transports: list[asyncio.DatagramTransport], port: int) -> None:
        self._transports = transports
        self.port = port

    @classmethod
    async def start(cls, host: str, port: int, *, count: Callable[[str], None]) -> Self:
        """Begin to answer.

        Args:
            host: As for the server itself.
            port: UDP port; 0 takes a free one.
            count: Told the outcome of each datagram: ``answered``, ``ignored``, ``limited``.

        Raises:
            InvalidConfig: The host is none of this machine's, or the port isn't allowed.
            Busy: Another program has the port.
        """
        loop = asyncio.get_running_loop()
        sockets = listen(host, port, socket.SOCK_DGRAM, flag="--stun-port")
        responder = Responder(count=count, clock=time.monotonic)
        transports = []
        for listener in sockets:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Endpoint(responder), sock=listener
            )
            transports.append(transport)
        return cls(transports, sockets[0].getsockname()[1])

    def close(self) -> None:
        """Answer no more."""
        for transport in self._transports:
            transport.close()


class Responder:
    """Decides what is answered.

    Args:
        count: Told the outcome of each datagram.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, *, count: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._count, self._clock = count, clock
        self._sources = SourceLimits(rate=SOURCE_RATE, burst=SOURCE_BURST)
        self._total = TokenBucket(rate=TOTAL_RATE, burst=TOTAL_RATE, now=clock())

    def respond(self, datagram: bytes, source: tuple[str, int]) -> bytes | None:
        """The answer to a datagram, or None."""
        response = answer(datagram, source)
        if response is None:
            self._count("ignored")
            return None
        now = self._clock()
        if not (self._sources.allow(source[0], now) and self._total.try_take(1, now)):
            self._count("limited")
            return None
        self._count("answered")
        return response


class _Endpoint(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._transport: asyncio.DatagramTransport | None = None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own isn't a subclass of DatagramTransport before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._responder.respond(data, (addr[0], addr[1]))
        if response is not None and self._transport is not None and not self._full:
            self._transport.sendto(response, addr)

    def pause_writing(self) -> None:
        self._full = True  # answers are dropped meanwhile: a device asks again

    def resume_writing(self) -> None:
        self._full = False

    def error_received(self, exc: Exception) -> None:
        logger.debug("STUN: {}", exc)
