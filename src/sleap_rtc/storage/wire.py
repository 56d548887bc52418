"""One HTTP request to a store at a time, by blocking sockets: the cheapest way to move a file.

On ``http`` a file goes out by ``sendfile``, which never copies it into this process, and which
waits within the kernel for room on the connection. On ``https`` it is read and encrypted here.
Connections are kept open for the next request.

The head of a request is put together here, and its answer taken apart (:mod:`.answers`):
``http.client`` takes longer for both than the kernel for sending 20 KB.

No redirect is followed: a signed request is for one host.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from sleap_rtc.errors import DataError, StorageRefused, StorageUnreachable
from sleap_rtc.storage.answers import PlainAnswer, Read, read_answer
from sleap_rtc.storage.objects import SignedRequest

CONNECT_SECONDS: Final = 7.0
ANSWER_SECONDS: Final = 60.0
"""Seconds of silence after which a connection counts as lost."""
MAX_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of the largest answer that isn't an object: a list of 10,000 parts has 3 million."""

_SLICE: Final = 4 * 1024 * 1024
"""Bytes of a file that are sent between two looks at whether to go on."""
_ENCRYPTED: Final = 128 * 1024
"""Bytes that are encrypted together: all of them must go out within the time of silence."""

_MORE: Final = getattr(socket, "MSG_MORE", 0)
"""Says that a head is to wait for what comes behind it; Linux alone knows it."""

_METHOD: Final = re.compile(r"[A-Z]{1,16}")
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""What a request's line and headers may have."""

Pace = Callable[[int], None]
"""Called with the bytes that are about to move; it may wait, and what it raises ends the request.
"""


class FileSlice(msgspec.Struct, frozen=True):
    """A part of an open file.

    Attributes:
        fd: Open for reading; its position doesn't matter.
        offset: Where the part begins.
        size: Bytes.
    """

    fd: int
    offset: int
    size: int


class Answer(msgspec.Struct, frozen=True):
    """What the store said.

    Attributes:
        status: Of HTTP.
        headers: Names in lower case.
        body: Whole.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300


class Connections:
    """Connections to stores. For many threads.

    Args:
        timeout: Seconds of silence after which a connection counts as lost.
        connect: Seconds that a new connection may take.
        tls: How certificates are checked; the system's way by default.
    """

    def __init__(
        self,
        *,
        timeout: float = ANSWER_SECONDS,
        connect: float = CONNECT_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._connect = connect
        self._tls = tls
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._in_use: set[socket.socket] = set()
        self._aborted = False

    def send(
        self,
        request: SignedRequest,
        data: bytes | FileSlice = b"",
        *,
        headers: Mapping[str, str] | None = None,
        pace: Pace | None = None,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Make a request and read the whole answer.

        Args:
            request: What to ask.
            data: The body.
            headers: Beside those that are signed.
            pace: Told of what is about to be sent.
            limit: Bytes that the answer may have.

        Raises:
            StorageUnreachable: No answer, or not all of it.
            DataError: The answer has more than ``limit`` bytes.
        """
        with self.answering(request, data, headers=headers, pace=pace) as response:
            body = response.read(limit + 1)
            if len(body) > limit:
                raise DataError(what="a store's answer", why=f"it has more than {limit} bytes")
            if response.length:  # of what was announced
                raise http.client.IncompleteRead(body, response.length)
            return Answer(status=response.status, headers=headers_of(response), body=body)

    @contextlib.contextmanager
    def answering(
        self,
        request: SignedRequest,
        data: bytes | FileSlice = b"",
        *,
        headers: Mapping[str, str] | None = None,
        pace: Pace | None = None,
    ) -> Iterator[Read]:
        """Make a request; the answer's body is for the caller to read within the block.

        Raises:
            StorageUnreachable: No answer, or the connection broke within the block.
        """
        parts = _address(request.url)
        place = (parts.scheme, parts.netloc)
        connection = self._connection(place)
        sock = connection.sock
        with self._lock:
            self._in_use.add(sock)
            if self._aborted:  # while this one was being made
                _cut(sock)
        done = False
        try:
            with _ask(connection, request, data, headers or {}, pace) as response:
                yield response
                # Only what was read to its end leaves the connection ready for the next request.
                done = response.isclosed() and not response.will_close
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise StorageUnreachable(store=parts.netloc, why=_lower(why)) from error
        except _Illegal as error:
            raise StorageRefused(store=parts.netloc, what="be asked", why=str(error)) from None
        finally:
            with self._lock:
                self._in_use.discard(sock)
                if done and not self._aborted:
                    self._idle.setdefault(place, []).append(connection)
            if not done or self._aborted:
                connection.close()

    def abort(self) -> None:
        """End what is under way in other threads at once, and whatever is asked after it."""
        with self._lock:
            self._aborted = True
            for sock in self._in_use:
                _cut(sock)

    def close(self) -> None:
        """Close the connections that no request uses."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in itertools.chain(*idle.values()):
            connection.close()

    def _connection(self, place: tuple[str, str]) -> http.client.HTTPConnection:
        """A connection that was kept, or a new one."""
        while True:
            with self._lock:
                idle = self._idle.get(place)
                connection = idle.pop() if idle else None
            if connection is None:
                break
            if not _is_stale(connection):
                return connection
            connection.close()
        scheme, netloc = place
        if scheme == "https":
            tls = self._tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(netloc, timeout=self._connect, context=tls)
        else:
            connection = http.client.HTTPConnection(netloc, timeout=self._connect)
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout)
            _bound_silence(connection.sock, self._timeout)
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # no name of a host
            connection.close()
            why = str(error) or type(error).__name__
            raise StorageUnreachable(store=netloc, why=_lower(why)) from error
        return connection


class _Illegal(Exception):
    """What is to be sent is no HTTP."""


def _address(url: str) -> SplitResult:
    """The parts of a URL that is asked for; only plain ones are."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.username is None:
            parts.port  # noqa: B018 - raises when it is none
            return parts
    raise StorageRefused(store="there", what="be asked", why="its address is no plain HTTP URL")


def _cut(sock: socket.socket) -> None:
    """End a connection as if the other side had hung up."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def headers_of(response: Read) -> dict[str, str]:
    """An answer's headers, names in lower case."""
    if isinstance(response, PlainAnswer):
        return response.headers
    return {name.lower(): value for name, value in response.getheaders()}


def _ask(
    connection: http.client.HTTPConnection,
    request: SignedRequest,
    data: bytes | FileSlice,
    headers: Mapping[str, str],
    pace: Pace | None,
) -> Read:
    parts = urlsplit(request.url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    size = len(data) if isinstance(data, bytes) else data.size
    sent = {name.lower(): value for name, value in {**headers, **request.headers}.items()}
    if request.method in ("PUT", "POST"):
        sent.setdefault("content-length", str(size))
    sock = connection.sock
    head = _head(connection, request.method, target, sent)
    try:
        if isinstance(data, FileSlice):
            _send_file(sock, head, data, pace)
        else:
            if data and pace is not None:
                pace(size)
            sock.sendall(head + data)
    except (BrokenPipeError, ConnectionResetError):
        # A store that refuses may say so and hang up before it has read everything.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return read_answer(sock, request.method)
        raise
    return read_answer(sock, request.method)


def _head(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str]
) -> bytes:
    """The head of a request, if it is one and no more."""
    lines = {"host": _host(connection), **headers}
    legal = all(_NAME.fullmatch(name) and _VALUE.fullmatch(v) for name, v in lines.items())
    if not (legal and _METHOD.fullmatch(method) and _TARGET.fullmatch(target)):
        raise _Illegal("the link or its headers hold characters that none may have")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


def _host(connection: http.client.HTTPConnection) -> str:
    """How a store's address is named to it; its own port isn't."""
    host = (
        connection.host.encode("idna").decode() if ":" not in connection.host else connection.host
    )
    host = f"[{host}]" if ":" in host else host
    return host if connection.port == connection.default_port else f"{host}:{connection.port}"


def _send_file(sock: socket.socket, head: bytes, data: FileSlice, pace: Pace | None) -> None:
    """Send a head and a part of a file behind it."""
    at, end = data.offset, data.offset + data.size
    encrypted = isinstance(sock, ssl.SSLSocket)
    sock.sendall(head, 0 if encrypted or not data.size else _MORE)
    while at < end:
        stop = min(at + _SLICE, end)
        if pace is not None:
            pace(stop - at)
        while at < stop:  # the system takes what it has room for
            if encrypted:
                content = os.pread(data.fd, min(_ENCRYPTED, stop - at), at)
                sock.sendall(content)
                sent = len(content)
            else:
                sent = _sendfile(sock, data.fd, at, stop - at)
            if not sent:
                raise ConnectionAbortedError("the file became shorter while it was sent")
            at += sent


def _sendfile(sock: socket.socket, fd: int, offset: int, size: int) -> int:
    """Send within the kernel; it waits there for room, as long as a silence may last."""
    timeout = sock.gettimeout()
    sock.settimeout(None)
    try:
        return os.sendfile(sock.fileno(), fd, offset, size)
    except BlockingIOError:
        raise TimeoutError("the store takes no more bytes") from None
    finally:
        sock.settimeout(timeout)


def _bound_silence(sock: socket.socket, seconds: float) -> None:
    """Let what blocks within the kernel end after so long without a byte."""
    whole = int(seconds)
    interval = struct.pack("@ll", whole, int((seconds - whole) * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def _is_stale(connection: http.client.HTTPConnection) -> bool:
    """Whether the store has hung up since the last request: between two it says nothing."""
    if connection.sock is None:
        return True
    poll = select.poll()  # whatever the socket's number is: ``select`` takes those below 1,024
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:300]
