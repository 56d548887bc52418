"""A WebSocket to the server, whose failures are errors that say what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from sleap_rtc.errors import LinkLost, ServerUnreachable
from sleap_rtc.net.address import ServerAddress, is_here
from sleap_rtc.protocol.codec import MAX_MESSAGE

OPEN_TIMEOUT: Final = 10.0
"""Seconds until a connection that doesn't come about is given up."""
CLOSE: Final = 0.5
"""Seconds for a server to say that it is closed, too: one that is gone says nothing."""
LAST_WORDS: Final = 2.0
"""Seconds for what was sent before to leave this machine, on a slow line."""
PING: Final = 20.0
"""Seconds between pings, and until an unanswered one ends the connection."""


class WebSocket:
    """An open connection. Make one with :meth:`open`."""

    def __init__(self, connection: ClientConnection, server: ServerAddress) -> None:
        self._connection, self._server = connection, server

    @classmethod
    async def open(
        cls, server: ServerAddress, path: str, *, within: float = OPEN_TIMEOUT
    ) -> WebSocket:
        """Connect.

        Args:
            server: Where to.
            path: The path on the server.
            within: Seconds until it is given up.

        Raises:
            ServerUnreachable: No server there, not this kind of server, or TLS failed.
        """
        try:
            connection = await _Connect(
                server.websocket_url + path,
                compression=None,
                max_size=MAX_MESSAGE,
                max_queue=8,
                open_timeout=within,
                close_timeout=LAST_WORDS,
                ping_interval=PING,
                ping_timeout=PING,
                # A proxy from the environment is for the world outside this machine.
                proxy=None if server.on_this_machine else True,
            )
        except (OSError, InvalidHandshake, InvalidURI, ProxyError, EOFError) as error:
            raise ServerUnreachable(url=server.url, why=_why(error, within)) from error
        return cls(connection, server)

    async def send(self, data: bytes) -> None:
        """Send one text frame.

        Raises:
            LinkLost: The connection has ended.
        """
        try:
            await self._connection.send(data, text=True)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self) -> bytes | str:
        """The next frame.

        Raises:
            LinkLost: The connection has ended.
        """
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise self._lost(error) from error

    @property
    def uprooted(self) -> bool:
        """Whether this machine has lost the address from which the connection was made.

        Nothing arrives any more then, and the system says nothing: it goes on sending for minutes.
        """
        return not is_here(self._connection.local_address[0])

    def abandon(self) -> None:
        """End the connection at once, without a word to the server."""
        self._connection.transport.abort()

    async def close(self) -> None:
        """End the connection; at once, when whoever waits for that is cancelled."""
        transport = self._connection.transport
        closing = asyncio.ensure_future(self._connection.close())
        try:
            await asyncio.wait([closing], timeout=CLOSE)
            if not closing.done() and transport.get_write_buffer_size():
                await asyncio.wait([closing], timeout=LAST_WORDS)
            if not closing.done():
                transport.abort()
            await closing
        except asyncio.CancelledError:
            transport.abort()
            closing.cancel()
            raise

    def _lost(self, error: ConnectionClosed) -> LinkLost:
        told = error.rcvd
        if told is not None and told.code == 1012:
            why = "the server stops or restarts"
        elif told is not None:
            why = f"the server ended it: {(told.reason or f'code {told.code}')[:200]}"
        elif error.sent is not None:
            why = error.sent.reason[:200] or "it was ended here"
        else:
            why = "it broke off"
        return LinkLost(peer=f"the server {self._server.url}", why=why)


class _Connect(connect):
    """A connection to the very address that was asked for."""

    def process_redirect(self, exc: Exception) -> Exception:
        """Follow no redirect: what is signed names the address that was dialled."""
        return exc


def _why(error: Exception, within: float) -> str:
    match error:
        case TimeoutError() | asyncio.TimeoutError():
            return f"no answer within {within:g} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message.rstrip('.')})"
        case ssl.SSLError():
            return "it doesn't speak TLS there, or not as we do: perhaps it wants http://"
        case InvalidStatus():
            return f"it answers, but not as a sleap-rtc server (HTTP {error.response.status_code})"
        case InvalidMessage():
            return "what answers there is no sleap-rtc server, or it wants https://"
        case ProxyError():
            return f"the proxy on the way refuses ({error})"[:300]
        case socket.gaierror():
            return f"its name can't be looked up ({error.strerror})"
        case OSError() if found := re.search(r"\[Errno (\d+)\]", str(error)):
            # asyncio says that a call failed, and of several addresses it strings that together.
            number = int(found[1])
            refused = number == errno.ECONNREFUSED
            return "nothing listens there" if refused else os.strerror(number)
    return (str(error) or type(error).__name__)[:300]
