"""One request and its answer, within bounds of time and size: sent once, never again."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

import httpcore2
import msgspec

from sleap_rtc.errors import DataError, HostUnreachable
from sleap_rtc.net.dialing import Pools
from sleap_rtc.net.urls import Target

BODY_WITHIN: Final = 60.0
"""Seconds for a whole body: one that drips in is given up."""
_MAX_HEADERS: Final = 200
_BROKEN: Final = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.RemoteProtocolError,
    httpcore2.ProxyError,
    OSError,
)


class Request(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        method: ``GET`` and so on.
        target: Where to.
        headers: Names in lower case.
        content: The body.
        limit: Bytes that the answer may have.
        timeout: Seconds for a connection, and for each answer or piece of one to come.
    """

    method: str
    target: Target
    headers: dict[str, str]
    content: bytes
    limit: int
    timeout: float

    def __repr__(self) -> str:
        return f"Request({self.method} {self.target.shown})"


class Response(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        status: 200 to 599; errors are for the asker to judge.
        headers: By name in lower case; of several of one name, all, with commas between.
        body: Its content, whole.
        url: Where it came from in the end.
        version: ``HTTP/1.1`` or ``HTTP/2``; empty for what was kept.
        stale: It was kept, and older than one would like, but nobody could be asked.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    url: str
    version: str = ""
    stale: bool = False

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"

    @property
    def ok(self) -> bool:
        """Whether it is what was asked for."""
        return 200 <= self.status < 300


def exchange(pools: Pools, request: Request) -> Response:
    """Send a request and read the answer.

    Raises:
        HostUnreachable: There is no answer, or it breaks off, or takes too long.
        UnsafeUrl: The host has only addresses that may not be asked.
        DataError: The answer is larger than allowed, or the request can't be sent so.
    """
    target = request.target
    try:
        return _exchange(pools, request)
    except _BROKEN as error:
        why = _why(error, request.timeout)
        raise HostUnreachable(host=target.address.url, why=why) from error
    except httpcore2.LocalProtocolError as error:
        raise DataError(what=target.shown, why=f"it can't be asked so ({error})") from None


def _exchange(pools: Pools, request: Request) -> Response:
    target = request.target
    steps = dict.fromkeys(("connect", "read", "write", "pool"), request.timeout)
    until = time.monotonic() + BODY_WITHIN
    with pools.of(target).stream(
        request.method,
        target.url,
        headers=_sendable(request),
        content=request.content or None,
        extensions={"timeout": steps},
    ) as answer:
        if len(answer.headers) > _MAX_HEADERS:
            raise DataError(what=target.shown, why="its answer has too many headers")
        body = bytearray()
        for piece in answer.iter_stream():
            body += piece
            if len(body) > request.limit:
                why = f"its answer is larger than {request.limit:,} bytes"
                raise DataError(what=target.shown, why=why)
            if time.monotonic() > until:
                raise httpcore2.ReadTimeout
        return Response(
            status=answer.status,
            headers=_readable(answer.headers),
            body=bytes(body),
            url=target.url,
            version=_version(answer.extensions),
        )


def _sendable(request: Request) -> list[tuple[bytes | str, bytes | str]]:
    headers = {
        "host": request.target.address.url.partition("://")[2],
        # Nothing small unpacks into something large.
        "accept-encoding": "identity",
        "user-agent": "sleap-rtc",
        "accept": "*/*",
    }
    if request.content or request.method in ("POST", "PUT"):
        headers["content-length"] = str(len(request.content))
    return [*(headers | request.headers).items()]


def _readable(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw in headers:
        name, value = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _version(extensions: Mapping[str, Any]) -> str:
    return str(extensions.get("http_version", b"").decode("ascii", "replace"))


def _why(error: Exception, timeout: float) -> str:
    # httpcore2 wraps the system's errors in its own.
    inner = error.args[0] if error.args else None
    cause = inner if isinstance(inner, Exception) else error
    match cause:
        case TimeoutError() | httpcore2.TimeoutException():
            return f"no answer within {timeout:g} s"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({cause.verify_message})"
        case ConnectionRefusedError():
            return "nothing listens there"
    text = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
    return str(text)[:300]
