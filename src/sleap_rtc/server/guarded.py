"""uvicorn's protocols, without what they let a bad guest do.

* A TCP connection that says nothing, or a byte now and then, is held for ever:
  here a request has to be there, and answered, within :data:`REQUEST_WITHIN`,
  and so has each further one on the same connection.
* Each WebSocket ping is answered at once, read or not, so whoever sends pings
  and reads nothing fills this process's memory: here pings and pongs are
  counted.
* A message may come in any number of fragments, also empty ones, which no limit
  on its bytes notices: here fragments are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from sleap_rtc.net.limits import TokenBucket

REQUEST_WITHIN: Final = 10.0
"""Seconds for a request over HTTP and its answer, or for the beginning of a WebSocket."""
CONTROL_RATE: Final = 1.0
CONTROL_BURST: Final = 30.0
"""Pings and pongs per second in the long run, and at once; real ones come every 20 seconds."""
MAX_FRAGMENTS: Final = 256
"""Parts that one message may come in."""


_TIME: Final = "give_time"


def give_time(scope: MutableMapping[str, Any], seconds: float) -> None:
    """Let a request take so many seconds from now on.

    Args:
        scope: The request's.
        seconds: Until its connection is ended.

    Raises:
        ConnectionError: The other side went away.
    """
    give = scope.get("state", {}).get(_TIME)
    if give is not None and not give(seconds):
        raise ConnectionResetError("the other side went away")


class GuardedHttp(H11Protocol):
    """HTTP, with a deadline."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count the seconds."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(REQUEST_WITHIN, transport.abort)
        # Each request's scope has a copy of this, and so a way to its connection.
        self.app_state = {**self.app_state, _TIME: self.give_time}

    def give_time(self, seconds: float) -> bool:
        """Count anew: the request is one that may take so long from now on.

        Returns:
            Whether the other side is still there.
        """
        if self.transport.is_closing():
            return False
        self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended by itself."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Give the next request, if there may be one, as much time as the first had."""
        self.give_time(REQUEST_WITHIN)
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Become a WebSocket, which has a deadline of its own for signing in."""
        self._deadline.cancel()
        super().handle_websocket_upgrade(event)


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket, with limits on what reaches no application."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with a full bucket."""
        super().connection_made(transport)
        self._bucket = TokenBucket(rate=CONTROL_RATE, burst=CONTROL_BURST, now=self.loop.time())

    def handle_ping(self) -> None:
        """Answer a ping, if there aren't too many."""
        if self._allowed():
            super().handle_ping()

    def handle_pong(self, event: Any) -> None:
        """Take a pong, if there aren't too many."""
        if self._allowed():
            super().handle_pong(event)

    def handle_cont(self, event: Any) -> None:
        """Take a further part of a message, if there aren't too many."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.transport.abort()
        else:
            super().handle_cont(event)

    def _allowed(self) -> bool:
        if self._bucket.try_take(1, self.loop.time()):
            return True
        self.transport.abort()
        return False
