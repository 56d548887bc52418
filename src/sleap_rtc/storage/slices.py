"""Reading what is to be sent: hashed for the store, and compared with what it should be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import SourceChanged
from sleap_rtc.storage.wire import FileSlice


def sha256_of(
    piece: FileSlice,
    *,
    name: str,
    entry: FileEntry | None = None,
    going_on: Callable[[], None] = lambda: None,
) -> bytes:
    """The SHA-256 of a part of a file.

    Args:
        piece: The part.
        name: Names the file in errors.
        entry: The file's blocks, where they are known and the part begins with a whole one: each
            is compared.
        going_on: Called before each block; what it raises ends this.

    Raises:
        SourceChanged: The file ends too early, or isn't what ``entry`` says.
        OSError: It can't be read.
    """
    digest = hashlib.sha256()
    # One buffer for all: fresh memory for each block would cost as much as reading it.
    buffer = memoryview(bytearray(min(BLOCK, piece.size)))
    at, end = piece.offset, piece.offset + piece.size
    while at < end:
        going_on()
        data = _read(piece.fd, buffer[: min(BLOCK, end - at)], at)
        if not data or not is_block(entry, at, data):
            raise SourceChanged(path=name)
        digest.update(data)
        at += len(data)
    return digest.digest()


def is_block(entry: FileEntry | None, offset: int, data: bytes | memoryview) -> bool:
    """Whether bytes are the block of a file that begins there; True where that isn't known."""
    return entry is None or blake3(data).digest() == entry.block_hash(offset // BLOCK)


def _read(fd: int, buffer: memoryview, at: int) -> memoryview:
    """Fill the buffer from a file, or as much of it as the file still has."""
    filled = 0
    while filled < len(buffer) and (got := os.preadv(fd, [buffer[filled:]], at + filled)):
        filled += got
    return buffer[:filled]
