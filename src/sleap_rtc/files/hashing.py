"""Hashing a file in one pass: its blocks for the package, the whole for the record.

The hash of the whole is what ``b3sum`` prints. A file that changes while it is
read has no hash: it is :class:`~sleap_rtc.errors.SourceChanged`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import SourceChanged
from sleap_rtc.files.beneath import open_file

_MANY: Final = 4
"""Processors from which on a file is hashed by several: with two, handing out the work costs more
than it brings, all the more when another thread copies the file at the same time."""

Progress = Callable[[int], None]
"""Called with the bytes that were just hashed; what it raises ends the hashing."""


class FileStamp(msgspec.Struct, frozen=True):
    """What tells that a file is still the one that was read, without reading it.

    Attributes:
        device: Of the file system.
        inode: On it.
        size: Bytes.
        mtime_ns: Last change of the content, nanoseconds since 1970.
        ctime_ns: Last change of anything about it.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_content(self, other: FileStamp) -> bool:
        """Whether nothing speaks for a changed content.

        A hard link or a changed mode moves ``ctime_ns`` and nothing else, so it doesn't count.
        """
        return (
            self.inode == other.inode
            and self.device == other.device
            and self.size == other.size
            and self.mtime_ns == other.mtime_ns
        )


class FileHashes(msgspec.Struct, frozen=True):
    """The hashes of one file.

    Attributes:
        blocks: The blocks' BLAKE3, 32 bytes each, one after the other.
        blake3: Of the whole file, 64 hex digits.
    """

    blocks: bytes
    blake3: str


def stamp_of(fd: int) -> FileStamp:
    """The stamp of an open file."""
    found = os.fstat(fd)
    return FileStamp(
        device=found.st_dev,
        inode=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def hash_file(
    path: Path, *, as_path: str, progress: Progress | None = None
) -> tuple[FileEntry, FileHashes]:
    """Hash a file in one pass.

    Args:
        path: A regular file, not a link.
        as_path: The entry's path in the package.
        progress: Told of every 4 MiB or less.

    Raises:
        SourceChanged: It changed meanwhile.
        UnsafePath: Not a regular file.
        OSError: It can't be read.
    """
    fd = open_file(path)
    try:
        stamp, hashes = hash_open(fd, name=str(path), progress=progress)
    finally:
        os.close(fd)
    return FileEntry(path=as_path, size=stamp.size, hashes=hashes.blocks), hashes


def hash_open(
    fd: int, *, name: str, progress: Progress | None = None
) -> tuple[FileStamp, FileHashes]:
    """Hash an open file from its beginning; its position is moved.

    Args:
        fd: A descriptor for reading.
        name: Names the file in errors.
        progress: Told of every 4 MiB or less.

    Returns:
        Its stamp, the same before and after, and its hashes.

    Raises:
        SourceChanged: It changed meanwhile.
        OSError: It can't be read.
    """
    stamp = stamp_of(fd)
    # A file of one block has that block's hash: it needs no second one.
    threads, piece = _way()
    whole = blake3(max_threads=threads) if stamp.size > BLOCK else None
    buffer = memoryview(bytearray(min(piece, stamp.size)))
    blocks: list[bytes] = []
    done = 0
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        while done < stamp.size and (chunk := _fill(file, buffer)):
            if whole is not None:
                whole.update(chunk)
            blocks += [
                blake3(chunk[at : at + BLOCK]).digest() for at in range(0, len(chunk), BLOCK)
            ]
            done += len(chunk)
            if progress is not None:
                progress(len(chunk))
    if done != stamp.size or stamp_of(fd) != stamp:
        raise SourceChanged(path=name)
    if whole is not None:
        digest = whole.hexdigest()
    else:
        digest = blocks[0].hex() if blocks else blake3().hexdigest()
    return stamp, FileHashes(blocks=b"".join(blocks), blake3=digest)


def _way() -> tuple[int, int]:
    """Threads to hash with, and bytes to read at once: enough for them, and small for the cache."""
    known = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return (blake3.AUTO, 4 * BLOCK) if processors >= _MANY else (1, BLOCK)


def _fill(file: io.FileIO, buffer: memoryview) -> memoryview:
    """Fill the buffer, or as much of it as the file still has."""
    filled = 0
    while filled < len(buffer) and (got := file.readinto(buffer[filled:])):
        filled += got
    return buffer[:filled]
