"""A few open files out of many, shared by threads."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager


class Handles:
    """Keeps the files that were used last open, and closes the others.

    Args:
        opener: Gives a new descriptor for a file's index.
        limit: How many stay open; more are only while more are in use at once.
    """

    def __init__(self, opener: Callable[[int], int], *, limit: int = 32) -> None:
        self._opener = opener
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = False
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._used: dict[int, tuple[int, int]] = {}

    def use(self, index: int) -> AbstractContextManager[int]:
        """The file's descriptor, which stays open at least until the block ends.

        Raises:
            Exception: Whatever the opener raises.
        """
        return _Use(self, index)

    def _begin(self, index: int) -> int:
        with self._lock:
            fd, users = self._used.get(index, (-1, 0))
            if not users:
                fd = self._idle.pop(index, -1)
            if fd < 0:
                fd = self._opener(index)
            self._used[index] = (fd, users + 1)
            return fd

    def _end(self, index: int) -> None:
        with self._lock:
            fd, users = self._used.pop(index)
            if users > 1:
                self._used[index] = (fd, users - 1)
            elif self._closed:
                os.close(fd)
            else:
                self._idle[index] = fd
                if len(self._idle) > self._limit:
                    os.close(self._idle.popitem(last=False)[1])

    def close(self) -> None:
        """Close what is not in use, and from now on each file when its last user has done."""
        with self._lock:
            self._closed = True
            while self._idle:
                os.close(self._idle.popitem()[1])


class _Use(AbstractContextManager[int]):
    """One use of a file; written out, since blocks of every transfer pass here."""

    __slots__ = ("_handles", "_index")

    def __init__(self, handles: Handles, index: int) -> None:
        self._handles, self._index = handles, index

    def __enter__(self) -> int:
        return self._handles._begin(self._index)

    def __exit__(self, *_: object) -> None:
        self._handles._end(self._index)
