"""The bytes of a file, read where they are needed and never past the file's end."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from sleap_rtc.errors import Damaged

MAX_PIECE: Final = 128 * 1024 * 1024
"""Bytes that are read at once at most."""

_WINDOW: Final = 16 * 1024
_STREAM: Final = 4 * 1024 * 1024


class Content:
    """An open file.

    Args:
        fd: A descriptor for reading, which stays the caller's.
        name: Names the file in errors.

    Attributes:
        size: Bytes.
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self.name = name
        self.size = os.fstat(fd).st_size

    def at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            Damaged: The file ends before, or says that it has an impossible part.
        """
        if offset < 0 or not 0 <= length <= MAX_PIECE:
            raise self.damaged("it names a part that can't be")
        if offset + length > self.size:
            raise self.ends()
        data = b""
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                raise self.ends()
            data += more
        return data

    def head(self, length: int) -> bytes:
        """The first bytes, as many as there are."""
        return self.at(0, min(length, self.size))

    def pieces(self, *, overlap: int) -> Iterator[bytes]:
        """The whole file in pieces; each begins with the last ``overlap`` bytes of the one before.

        So nothing that is shorter than the overlap is cut in two in all of them.
        """
        offset = 0
        while offset < self.size:
            start = max(offset - overlap, 0)
            length = min(_STREAM + offset - start, self.size - start)
            yield self.at(start, length)
            offset = start + length

    def damaged(self, why: str) -> Damaged:
        """The error that says what is wrong with the file."""
        return Damaged(what=self.name, why=why)

    def ends(self) -> Damaged:
        """The error for a file that was cut."""
        return self.damaged(f"it ends too early, after {self.size:,} bytes; it may have been cut")


class Cursor:
    """Reads a part of a file from its beginning to its end.

    Args:
        content: The file.
        start: Offset of the part.
        end: Offset of its end; by default the file's.
    """

    def __init__(self, content: Content, start: int = 0, end: int | None = None) -> None:
        self.content = content
        self.offset = start
        self.end = content.size if end is None else end
        self._window = b""
        self._window_at = start
        if self.end > content.size:
            raise content.ends()

    def take(self, length: int) -> bytes:
        """The next bytes.

        Raises:
            Damaged: The part ends before.
        """
        if length < 0 or self.offset + length > self.end:
            raise self.content.ends()
        start = self.offset - self._window_at
        if start + length > len(self._window):
            size = min(max(length, _WINDOW), self.end - self.offset)
            self._window = self.content.at(self.offset, size)
            self._window_at, start = self.offset, 0
        self.offset += length
        return self._window[start : start + length]

    def skip(self, length: int) -> None:
        """Pass over the next bytes without reading them.

        Raises:
            Damaged: The part ends before.
        """
        if length < 0 or self.offset + length > self.end:
            raise self.content.ends()
        self.offset += length
        if self.offset > self._window_at + len(self._window):
            self._window, self._window_at = b"", self.offset

    def unpack(self, layout: str) -> tuple[int, ...]:
        """The next numbers, laid out as ``struct`` has it."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def number(self, layout: str) -> int:
        """The next number."""
        (value,) = self.unpack(layout)
        return value

    @property
    def done(self) -> bool:
        """Whether the part is at its end."""
        return self.offset == self.end
