"""Memory for blocks, used again and again.

The system gives fresh memory page by page and clears it: for a block that
takes about as long as hashing it. So who fills a block takes memory here, and
who is done with the block gives it back; what isn't given back is freed as any
other memory.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final

from sleap_rtc.domain.packages import BLOCK

Content = bytes | memoryview
"""The bytes of a block."""

KEPT: Final = 12
"""Blocks of memory that are kept for the next ones: what is under way from one source."""

_PIECE: Final = 256 * 1024
"""Bytes that are written and read back at a time."""

_free: Final[deque[bytearray]] = deque(maxlen=KEPT)
_own: Final = threading.local()
"""Where each thread reads back what it has written."""


def take(size: int) -> memoryview:
    """Memory for ``size`` bytes, with anything in it.

    Args:
        size: Up to a block. Small blocks get memory of their own size, so that many of them at
            once don't take far more than what is in them.
    """
    if not BLOCK // 2 < size <= BLOCK:
        return memoryview(bytearray(size))
    try:
        kept = _free.pop()
    except IndexError:
        kept = bytearray(BLOCK)
    return memoryview(kept)[:size]


def give_back(content: Content) -> None:
    """The content isn't needed any more, by anybody; it can't be read after this.

    Args:
        content: From :func:`take`, or not: other memory is left to the interpreter.
    """
    if isinstance(content, memoryview):
        memory = content.obj
        content.release()
        if isinstance(memory, bytearray) and len(memory) == BLOCK:
            _free.append(memory)  # one too many is dropped


def drop() -> None:
    """Leave what is kept to the system; for when nothing more is moved for a while."""
    _free.clear()


def read_at(fd: int, into: memoryview, offset: int) -> int:
    """Fill ``into`` from an open file, wherever that is positioned.

    Returns:
        Bytes that were read: fewer where the file ends.

    Raises:
        OSError: It can't be read.
    """
    filled = 0
    while filled < len(into) and (got := os.preadv(fd, [into[filled:]], offset + filled)):
        filled += got
    return filled


def write_at(fd: int, data: Content, offset: int) -> None:
    """Write all of ``data`` to an open file, wherever that is positioned.

    Raises:
        OSError: It can't be written.
    """
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def write_and_compare(fd: int, data: Content, offset: int) -> bool:
    """Write all of ``data`` to an open file, and read it back.

    Both are done piece by piece: what was just written is still in the processor's cache.

    Args:
        fd: A descriptor for both.
        data: What to write.
        offset: Where.

    Returns:
        Whether what was read is what was written.

    Raises:
        OSError: It can't be written, or not be read.
    """
    view, right = memoryview(data), True
    for at in range(0, len(view), _PIECE):
        piece = view[at : at + _PIECE]
        write_at(fd, piece, offset + at)
        back = _back() if len(piece) == _PIECE else bytearray(len(piece))
        # A bytearray is compared at once, a view byte by byte.
        right &= read_at(fd, memoryview(back), offset + at) == len(piece) and back == piece
    return right


def _back() -> bytearray:
    """Memory for a piece, this thread's own."""
    back: bytearray | None = getattr(_own, "back", None)
    if back is None:
        back = _own.back = bytearray(_PIECE)
    return back
