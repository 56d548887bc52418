"""What has happened and waits to be read, for a reader that may be slow.

An inbox tells its writer when it is full, and calls it when there is room again.
A job's events are not lost meanwhile: they are in the job's log on the worker,
and are asked for anew from where this reader is.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LIMIT: Final = 256
"""Items after which an inbox is full: at most 16 MiB of events, since each fits into a message."""


class Inbox(Generic[T]):
    """Items in the order in which they came. For one event loop, and one reader.

    Args:
        on_room: Called by the reader when an inbox that was full is half empty again.
        limit: Items from which on it is full.
    """

    def __init__(self, *, on_room: Callable[[], None] = lambda: None, limit: int = LIMIT) -> None:
        self._items: dict[object, T] = {}
        self._numbers = itertools.count()
        self._arrived = asyncio.Event()
        self._on_room = on_room
        self._limit = limit
        self._was_full = False

    @property
    def full(self) -> bool:
        """Whether the writer should stop, where it can; what it puts in is kept all the same."""
        return len(self._items) >= self._limit

    def put(self, item: T, *, instead: str | None = None) -> None:
        """Add an item.

        Args:
            item: The item.
            instead: Items of the same kind: one that waits is replaced, since only the newest
                says how things are.
        """
        self._items[next(self._numbers) if instead is None else instead] = item
        self._was_full |= self.full
        self._arrived.set()

    async def get(self) -> T:
        """The oldest item, as soon as there is one."""
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.pop(next(iter(self._items)))
        if self._was_full and len(self._items) <= self._limit // 2:
            self._was_full = False
            self._on_room()
        return item
