"""A store's answer, taken apart by hand where it is a plain one.

``http.client`` gives the head of each answer to a parser of e-mail. Of a small object that
takes longer than all the rest, so the head is read here::

    HTTP/1.1 206 Partial Content        status, 200 or more
    Content-Length: 20000               once, a number; nothing else says how long it is
    Etag: "99f5…"                       names and values, a line each
                                        then so many bytes; none after HEAD, 204 and 304

Whatever looks otherwise in any way, a chunked answer for example, goes to ``http.client``
from its first byte on, which knows all that there is.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from typing import Any, Final, Self, cast

_ROOM: Final = 32 * 1024
"""Bytes of the longest head that is read here; behind it a small object comes along."""
_MAX_LINES: Final = 100
_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [^\r\n]*)?")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++):[ \t]*+([^\r\n\0]*+)")
"""It never looks at a byte twice: with 32 KiB of spaces that would take seconds."""
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_EMPTY: Final = frozenset({204, 304})


class PlainAnswer:
    """An answer whose content has a known length; what of it is used here is as in ``http.client``.

    Attributes:
        status: Of HTTP.
        headers: Names in lower case.
        length: Bytes that are still to be read.
        will_close: Whether the connection is of no more use after it.
    """

    def __init__(
        self,
        sock: socket.socket,
        status: int,
        headers: dict[str, str],
        length: int,
        begun: memoryview,
    ) -> None:
        self.status, self.headers, self.length = status, headers, length
        self._sock = sock
        self._begun = begun[:length]
        # What comes behind its end belongs to nothing that was asked for.
        surplus = len(begun) > length
        self.will_close = surplus or "close" in headers.get("connection", "").lower()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Nothing is held but the connection, which is its user's."""

    def readinto(self, buffer: memoryview) -> int:
        """Read some of the content; 0 bytes at its end, or where the store has hung up."""
        room = buffer[: self.length]
        if self._begun:
            count = min(len(room), len(self._begun))
            room[:count] = self._begun[:count]
            self._begun = self._begun[count:]
        else:
            count = self._sock.recv_into(room) if room else 0
        self.length -= count
        return count

    def read(self, size: int) -> bytes:
        """Read up to so many bytes; fewer at the content's end, or where the store has hung up."""
        content = memoryview(bytearray(min(size, self.length)))
        filled = 0
        while filled < len(content) and (got := self.readinto(content[filled:])):
            filled += got
        return bytes(content[:filled])

    def isclosed(self) -> bool:
        """Whether all of it was read."""
        return not self.length


Read = PlainAnswer | http.client.HTTPResponse
"""An answer that can be read."""


def read_answer(sock: socket.socket, method: str = "GET") -> Read:
    """The answer to a request that was just sent.

    Args:
        sock: Where it comes.
        method: That was asked with: what HEAD asks about doesn't come.

    Raises:
        OSError: The connection broke.
        http.client.HTTPException: What comes is no answer.
    """
    buffer = bytearray(_ROOM)
    view = memoryview(buffer)
    filled = 0
    while filled < _ROOM:
        got = sock.recv_into(view[filled:])
        if not got:
            break
        # The end of the head may be cut in two.
        end = buffer.find(_END, max(0, filled - len(_END)), filled + got)
        filled += got
        if end >= 0:
            head, begun = bytes(view[:end]), view[end + len(_END) : filled]
            plain = _plain(sock, head, begun, empty=method == "HEAD")
            if plain is not None:
                return plain
            break
    again = cast("socket.socket", _Again(sock, bytes(view[:filled])))  # all that it needs of one
    response = http.client.HTTPResponse(again, method=method)
    response.begin()
    return response


def _plain(
    sock: socket.socket, head: bytes, begun: memoryview, *, empty: bool
) -> PlainAnswer | None:
    """The answer with this head, if it is a plain one.

    Args:
        sock: Where it comes.
        head: Without the empty line.
        begun: What came behind it.
        empty: Whether there is no content, whatever the head says of it.
    """
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or len(lines) > _MAX_LINES:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        name = found[1].decode("ascii").lower()
        if name in headers:  # which of both would count?
            return None
        headers[name] = found[2].decode("latin-1").rstrip(" \t")
    code = int(status[1])
    length = "0" if empty or code in _EMPTY else headers.get("content-length", "")
    if "transfer-encoding" in headers or _NUMBER.fullmatch(length) is None:
        return None
    return PlainAnswer(sock, code, headers, int(length), begun)


class _Again:
    """In place of a socket of which some was read already: whoever reads it gets that first."""

    def __init__(self, sock: socket.socket, begun: bytes) -> None:
        self._sock, self._begun = sock, begun

    def makefile(self, _mode: str) -> io.BufferedReader:
        """All that comes, from the first byte on."""
        return io.BufferedReader(_Rest(self._sock, self._begun))


class _Rest(io.RawIOBase):
    """What was read already, then what the socket gives."""

    def __init__(self, sock: socket.socket, begun: bytes) -> None:
        self._sock, self._begun = sock, begun

    def readable(self) -> bool:
        """It is read only."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is."""
        view = memoryview(buffer)
        if not self._begun:
            return self._sock.recv_into(view)
        count = min(len(view), len(self._begun))
        view[:count], self._begun = self._begun[:count], self._begun[count:]
        return count
