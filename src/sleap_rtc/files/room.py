"""Room on the disk for many small files, held by one file until they are made.

To reserve room file by file takes longer than to write a small file. So one file has the room of
all of them, and gives it back bit by bit, always before it is needed::

    room    ████████████████████        nothing is made yet
            ██████████████              what is freed is a step ahead of what is written
                                        all are made
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.space import reserve_range

STEP: Final = 16 * 1024 * 1024
"""Bytes that are given back at a time."""
_UNIT: Final = 4096
"""Bytes in which file systems give room to files."""


def room_of(size: int) -> int:
    """Bytes of room that a file of ``size`` bytes takes."""
    return -(-size // _UNIT) * _UNIT


class Room:
    """The file that holds it. For several threads.

    Args:
        path: Where it is; a file that is there is an earlier attempt's, and is used again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._needed = self._held = 0
        with disk_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o666)

    def drop(self) -> None:
        """Give back all of it, for example to see how much room there is without."""
        with self._lock:
            self._needed = self._held = 0
            os.ftruncate(self._fd, 0)

    def take(self, size: int) -> None:
        """Hold ``size`` bytes, where the file system can; else nothing.

        Raises:
            OutOfSpace: There is no room; nothing is held then.
        """
        with self._lock, disk_errors(self._path, need=size):
            self._needed = size
            try:
                self._held = size if size and reserve_range(self._fd, 0, size) else 0
            except OSError:
                os.ftruncate(self._fd, 0)
                raise

    def use(self, size: int) -> None:
        """So many bytes are written elsewhere, next."""
        with self._lock:
            self._needed = max(0, self._needed - size)
            if self._held > self._needed:
                self._held = max(0, self._needed - STEP)
                os.ftruncate(self._fd, self._held)

    def close(self) -> None:
        """Close the file, which holds what it holds."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
