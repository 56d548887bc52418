"""Reading tar archives that may have been made to fill memory.

A tar is a row of members, each behind headers that name their own size. What
reads them believes that size, reads as much at once, and remembers every
member; so here no header is larger than a mebibyte, nothing is read in large
pieces, and nothing is remembered.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, cast

from sleap_rtc.library import zstd

MAX_HEADER: Final = 1 << 20
"""Bytes of the headers of one member."""
MAX_GLOBAL: Final = 100
"""Values that an archive may give for all of its members."""

PACKED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", zstd.MAGIC)
"""How files begin that are compressed by gzip, bzip2, xz and Zstandard."""

_PIECE: Final = 1 << 20
_MAX_READ: Final = 4 << 20


def unpacked(file: IO[bytes]) -> IO[bytes]:
    """The stream in a file, which may be compressed.

    Raises:
        UsageError: By Zstandard, and the package for that isn't installed.
    """
    head = file.read(8)
    file.seek(0)
    stream: Any = file
    if head.startswith(PACKED[0]):
        stream = gzip.GzipFile(fileobj=file)
    elif head.startswith(PACKED[1]):
        stream = bz2.BZ2File(file)
    elif head.startswith(PACKED[2]):
        stream = lzma.LZMAFile(file)  # noqa: SIM115 - the file below it is closed by the caller
    elif head.startswith(PACKED[3]):
        stream = zstd.reader(file)
    return cast("IO[bytes]", stream)


class Tape:
    """A tar archive, read once from its beginning to its end.

    Args:
        file: The archive, which may be compressed.
        passed: Told of the bytes that were unpacked, whether they are used or skipped; what it
            raises ends the reading.

    Raises:
        tarfile.TarError: It is none. Reading raises that too, a ``ValueError``, and what the
            compression does, for what is wrong with it.
    """

    def __init__(self, file: IO[bytes], *, passed: Callable[[int], None] = lambda _: None) -> None:
        self._stream = _Bounded(unpacked(file), passed)
        # It holds no file of its own that would have to be closed.
        stream: Any = self._stream
        self._archive = tarfile.TarFile.open(fileobj=stream, mode="r:")

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Each member, directories and links among them."""
        while True:
            self._stream.header = MAX_HEADER
            member = self._archive.next()
            self._stream.header = None
            # Or it remembers all of them.
            self._archive.members = []  # type: ignore[attr-defined]
            if len(self._archive.pax_headers) > MAX_GLOBAL:
                raise ValueError("it says too much about itself")
            if member is None:
                return
            yield member

    def content(self, member: tarfile.TarInfo) -> IO[bytes]:
        """What the member has that was just met, a regular file."""
        content = self._archive.extractfile(member)
        if content is None:
            raise ValueError("it is no file")
        return content

    def finish(self) -> None:
        """Read to the end: the checksum of what is compressed comes last."""
        while self._stream.read(_PIECE):
            pass


class _Bounded:
    """A stream of which only a little is read at once.

    What is skipped is unpacked all the same, so it is told as well.

    Attributes:
        header: Bytes that may still be read of a member's headers; None outside of them.
    """

    def __init__(self, file: IO[bytes], passed: Callable[[int], None]) -> None:
        self._file = file
        self._passed = passed
        self._furthest = 0
        self.header: int | None = MAX_HEADER

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise ValueError("a part of it is too large")
        if self.header is not None:
            self.header -= size
            if self.header < 0:
                raise ValueError("what it says of a file is too large")
        data = self._file.read(size)
        self._pass()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence:
            raise ValueError("it is read in an odd order")
        while self._furthest < offset and self._file.tell() < offset:
            step = min(offset, self._file.tell() + _PIECE)
            before = self._file.tell()
            self._file.seek(step)
            self._pass()
            if self._file.tell() == before:
                break
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def _pass(self) -> None:
        at = self._file.tell()
        if at > self._furthest:
            self._passed(at - self._furthest)
            self._furthest = at
