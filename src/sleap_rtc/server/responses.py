"""Answers over HTTP, and bodies that are read within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import msgspec

from sleap_rtc.domain.values import Value, encode
from sleap_rtc.errors import DataError, SleapRtcError, TooManyRequests

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
SendAsgi = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = "application/json"
UNEXPECTED: Final = SleapRtcError(message="The server failed at this; its log says more.")
"""What is told of a failure that nobody has thought of."""
RETRY_AFTER_S: Final = 5
"""Seconds that whoever asks too often is told to wait."""


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: its status, body and headers."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}


def told(value: Value) -> Answer:
    """The answer that says what was asked for."""
    return Answer(status=200, body=encode(value))


def failed(error: SleapRtcError, *, status: int | None = None) -> Answer:
    """The answer that says why something can't be had, an ``ErrorTold`` on every path."""
    plain = {
        "code": error.code,
        "message": error.message[:4_000],
        "hint": error.hint_text[:1_000],
    }
    headers = {}
    if isinstance(error, TooManyRequests):
        headers["retry-after"] = str(RETRY_AFTER_S)
    return Answer(
        status=status or error.http_status,
        body=msgspec.json.encode({"error": plain}),
        headers=headers,
    )


async def respond(send: SendAsgi, answer: Answer, *, head: bool = False) -> None:
    """Send an answer."""
    await begin(
        send,
        answer.status,
        {"content-type": answer.content_type, "content-length": str(len(answer.body))}
        | dict(answer.headers),
    )
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


async def begin(send: SendAsgi, status: int, headers: Mapping[str, str]) -> None:
    """Send the head of an answer; it is the last on its connection unless the headers say not."""
    usual = {
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "connection": "close",
    }
    pairs = [(n.encode("ascii"), v.encode("latin-1")) for n, v in (usual | dict(headers)).items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


def header(scope: Scope, name: str) -> str:
    """A request's header; empty where it isn't given."""
    wanted = name.encode("ascii")
    for found, value in scope.get("headers", ()):
        if found == wanted:
            return str(value.decode("latin-1"))
    return ""


class Body:
    """A request's body, piece by piece.

    Args:
        receive: Gives the next ASGI event.

    Attributes:
        more: Whether something is still to come.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.more = True

    async def piece(self) -> bytes:
        """The next piece, maybe an empty one; only while there is more.

        Raises:
            ConnectionError: The other side went away.
        """
        event = await self._receive()
        if event["type"] == "http.disconnect":
            raise ConnectionResetError("the other side went away")
        self.more = bool(event.get("more_body"))
        return bytes(event.get("body", b""))

    async def whole(self, *, limit: int) -> bytes:
        """All of it.

        Raises:
            DataError: It is larger than allowed.
            ConnectionError: The other side went away.
        """
        found = bytearray()
        while self.more:
            found += await self.piece()
            if len(found) > limit:
                raise DataError(what="The request", why=f"it has more than {limit:,} bytes")
        return bytes(found)

    async def skip(self, limit: int, *, within: float) -> None:
        """Read what nobody wants: a connection that is closed before would hide the answer.

        Args:
            limit: Bytes that are read at most.
            within: Seconds that it may take.
        """
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(within):
                while self.more and limit > 0:
                    limit -= len(await self.piece())
