"""Ctrl-C while programs run: none of them may stay behind, whenever it comes.

An interrupt raises once, and never while it is held back::

    with interrupts, …:            the first one raises KeyboardInterrupt
        with interrupts.held():    … when this block has ended
            …
        …                          later ones are counted: whoever ends things may hurry

Without holding it back one that comes while a program is being started leaves
the program running, since nobody knows of it yet; and a second one would end
whoever stops what the first one has left.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final, Self

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes what ends a program while its block lasts. For the main thread.

    Attributes:
        count: How many have come.
    """

    def __init__(self) -> None:
        self.count = 0
        self._held = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def urgent(self) -> bool:
        """Whether somebody doesn't want to wait any longer: there was more than one."""
        return self.count > 1

    def __enter__(self) -> Self:
        for number in _NUMBERS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as by nohup, which goes on to hold
                self._before[number] = before
                signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the first one back until the block has ended.

        Raises:
            KeyboardInterrupt: It came within the block.
        """
        before = self.count
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if not before and self.count and not self._held:
            raise KeyboardInterrupt

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1 and not self._held:
            raise KeyboardInterrupt
