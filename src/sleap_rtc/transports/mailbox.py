"""From threads to the event loop, which is woken once for many things."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Takes things from any thread, and hands them over on the event loop it is made on.

    Waking the loop costs more than what is done with most things: whatever is put in until it
    looks is handed over at once, in the order in which it came.

    Args:
        take: Called on the event loop with each thing; must not raise.
    """

    def __init__(self, take: Callable[[T], None]) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._things: deque[T] = deque()
        self._woken = False

    def put(self, thing: T) -> None:
        """Hand something over; lost when the loop has ended. From any thread."""
        self._things.append(thing)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.empty)

    def empty(self) -> None:
        """Hand over what is there, now. On the event loop."""
        self._woken = False  # first: what is put in from here on wakes the loop again
        while self._things:
            self._take(self._things.popleft())
