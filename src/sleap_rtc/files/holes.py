"""Blocks of nothing but zeros: they are known by their hash, needn't travel, and take no disk.

A file that is mostly empty, as a disk image or a video container that was given room
in advance, keeps its holes: on the receiver's disk such a block isn't written, and
where the system tells that there is a hole it isn't read for a check either.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator

from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry


@functools.lru_cache(maxsize=64)
def _hash_of_zeros(size: int) -> bytes:
    return blake3(bytes(size)).digest()


def is_empty(entry: FileEntry, block: int) -> bool:
    """Whether a block of a file has nothing but zeros."""
    size = entry.block_size(block)
    # Of other sizes than whole blocks there are many, and each is the last of its file.
    return size == BLOCK and entry.block_hash(block) == _hash_of_zeros(BLOCK)


def empty_blocks(entry: FileEntry) -> list[int]:
    """The blocks of a file that have nothing but zeros."""
    if _hash_of_zeros(BLOCK) not in entry.hashes:
        return []
    return [block for block in range(entry.block_count) if is_empty(entry, block)]


def filled_runs(entry: FileEntry) -> Iterator[tuple[int, int]]:
    """Where a file has content: offset and length of each stretch between its empty blocks."""
    start = 0
    for block in (*empty_blocks(entry), entry.block_count):
        end = min(block * BLOCK, entry.size)
        if end > start:
            yield start, end - start
        start = end + BLOCK


def is_hole(fd: int, offset: int, size: int) -> bool:
    """Whether the system says that a file has a hole there, which reads as zeros."""
    if not hasattr(os, "SEEK_DATA"):
        return False
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + size
    except OSError as error:
        # Nothing but a hole follows, up to the file's end; which must be where it should be.
        return error.errno == errno.ENXIO and os.fstat(fd).st_size >= offset + size
