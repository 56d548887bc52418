"""Which blocks of partial data were read back since they were written, and were right.

They needn't be read once more in the end, unless something else has written to
their file meanwhile: its time of change is then later than our last write. Where
a write gets its time only when a server has it, as on a network's file system,
that looks the same, and the file is read once more as well.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from sleap_rtc.domain.layout import Layout


class ReadBack:
    """The blocks that were read back. For several threads.

    Args:
        layout: The numbers of the package's blocks.
        clock: Nanoseconds since 1970, of the clock that the file system takes its times from.
    """

    def __init__(self, layout: Layout, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._layout = layout
        self._clock = clock
        self._right = bytearray(layout.count)
        self._written_at: dict[int, int] = {}
        self._lock = threading.Lock()

    def __contains__(self, number: int) -> bool:
        return bool(self._right[number])

    def wrote(self, file: int) -> None:
        """Remember when we wrote to a file, by its index in the package; right after it."""
        now = self._clock()
        with self._lock:  # another thread may have written later, and been here sooner
            self._written_at[file] = max(now, self._written_at.get(file, now))

    def add(self, numbers: Sequence[int]) -> None:
        """These were read back, and are right."""
        for number in numbers:
            self._right[number] = 1

    def drop(self, numbers: Sequence[int]) -> None:
        """These have to be read once more."""
        for number in numbers:
            self._right[number] = 0

    def look(self, file: int, found: os.stat_result) -> None:
        """Forget a file that something else has written to since.

        Args:
            file: Its index in the package.
            found: What the system says of it.
        """
        written_at = self._written_at.get(file)
        if written_at is None or found.st_mtime_ns > written_at:
            self.drop(self._layout.numbers(file))
