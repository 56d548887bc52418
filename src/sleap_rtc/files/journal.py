r"""A file of records that only grows, each with its length and a checksum.

::

    <length, 8 hex digits> <CRC-32, 8 hex digits> <record>\n

A kill or a power cut may leave the last line torn: reading stops at the first
line that isn't whole, and what follows is cut off. Records are bytes without a
line feed, up to `MAX_RECORD`.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Final, Self

from sleap_rtc.files.durable import disk_errors, sync_file

MAX_RECORD: Final = 1024 * 1024

_HEAD: Final = 18


def frame(record: bytes) -> bytes:
    """The line of a record."""
    if len(record) > MAX_RECORD or b"\n" in record:
        raise ValueError("a record has up to 1 MiB and no line feed")
    return b"%08x %08x %s\n" % (len(record), zlib.crc32(record), record)


def read(data: bytes) -> tuple[list[bytes], int]:
    """The whole records at the beginning of ``data``, and how many bytes they take."""
    records: list[bytes] = []
    at = 0
    while True:
        head = data[at : at + _HEAD]
        try:
            length, checksum = int(head[:8], 16), int(head[9:17], 16)
        except ValueError:
            return records, at
        start = at + _HEAD
        record = data[start : start + length] if length <= MAX_RECORD else b""
        # Writing it again tells everything at once: spaces, digits, length, line feed.
        line = data[at : start + length + 1]
        if zlib.crc32(record) != checksum or b"\n" in record or line != frame(record):
            return records, at
        records.append(record)
        at += len(line)


class Journal:
    """A journal that is open for appending. For one thread at a time.

    Args:
        path: Made when it isn't there; a torn end is cut off.

    Attributes:
        records: What it held when it was opened.

    Raises:
        OutOfSpace: It can't be made.
        PathNotPermitted: This user may not write it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o666)
            data = path.read_bytes()
            self.records, self._length = read(data)
            if self._length != len(data):
                os.ftruncate(self._fd, self._length)

    def append(self, *records: bytes) -> None:
        """Add records; they survive this process at once, and a power cut after `sync`.

        Raises:
            OutOfSpace: The disk is full; the journal is as before.
        """
        lines = b"".join(map(frame, records))
        with disk_errors(self.path, need=len(lines)):
            try:
                written = os.write(self._fd, lines)
                while written < len(lines):
                    written += os.write(self._fd, lines[written:])
            except OSError:
                # Half a line would hide everything that is appended after it.
                os.ftruncate(self._fd, self._length)
                raise
        self._length += len(lines)

    def sync(self) -> None:
        """Wait until everything appended is on the disk."""
        with disk_errors(self.path):
            sync_file(self._fd)

    def close(self) -> None:
        """Close the file, without syncing it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
