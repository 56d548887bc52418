"""Reading what is to be sent: hashed for the store, and compared with what it should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import SourceChanged
from sleap_rtc.storage.checksums import new_digest
from sleap_rtc.storage.objects import Checksum
from sleap_rtc.storage.wire import FileSlice

_AT_ONCE: Final = 256 * 1024
"""Bytes that are read together."""


def checksum_of_slice(
    piece: FileSlice,
    checksum: Checksum,
    *,
    name: str,
    entry: FileEntry | None = None,
    going_on: Callable[[], None] = lambda: None,
) -> bytes:
    """The checksum of a part of a file.

    Args:
        piece: The part.
        checksum: Which.
        name: Names the file in errors.
        entry: The file's blocks, where they are known and the part begins with a whole one: each
            is compared.
        going_on: Called before each block; what it raises ends this.

    Raises:
        SourceChanged: The file ends too early, or isn't what ``entry`` says.
        OSError: It can't be read.
    """
    digest = new_digest(checksum)
    block = blake3()
    at, end = piece.offset, piece.offset + piece.size
    while at < end:
        going_on()
        # What is small stays where the processor is quick, and where memory needn't be made anew.
        # Mapped it would cost half as much, and a file that becomes shorter would end the process.
        data = os.pread(piece.fd, min(_AT_ONCE, end - at, BLOCK - at % BLOCK), at)
        if not data:
            raise SourceChanged(path=name)
        digest.update(data)
        at += len(data)
        if entry is None:
            continue
        block.update(data)
        if at % BLOCK == 0 or at == end:
            if block.digest() != entry.block_hash((at - 1) // BLOCK):
                raise SourceChanged(path=name)
            block.reset()
    return digest.digest()


def is_block(entry: FileEntry | None, offset: int, data: bytes | memoryview) -> bool:
    """Whether bytes are the block of a file that begins there; True where that isn't known."""
    return entry is None or blake3(data).digest() == entry.block_hash(offset // BLOCK)
