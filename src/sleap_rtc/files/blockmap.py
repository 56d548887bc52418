"""Which blocks of partial data are here: in memory, and in a journal that outlives the process.

::

    written ──keep──► here, and a record says so ──sync──► on the disk, and a record says so
                            │            ▲
                           lose         keep                 (turned out damaged, fetched again)
                            ▼            │
                          missing, and a record says so

The records are :mod:`sleap_rtc.files.ledger`'s. Data is synced before the record that speaks of it,
so what the journal promises is there after a power cut as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sleap_rtc.domain.layout import Layout
from sleap_rtc.files import ledger
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.journal import Journal
from sleap_rtc.files.partial_files import PartialFiles

SYNC_BYTES: Final = 64 * 1024 * 1024
SYNC_SECONDS: Final = 2.0


class BlockMap:
    """The blocks that are here, of one package. For several threads.

    Args:
        folder: The transfer's folder; the file ``journal`` in it is read, and written to.
        layout: The numbers of the package's blocks.
        files: Their files; blocks of which the journal doesn't say that they were synced are read.
        clock: Seconds, monotonic; decides when to sync.

    Attributes:
        done: One byte per block, 1 for those that are here.

    Raises:
        OutOfSpace: The journal can't be made.
        PathNotPermitted: This user may not write it.
        UnsafePath: Something that is not ours stands where a file should.
    """

    def __init__(
        self, folder: Path, layout: Layout, files: PartialFiles, *, clock: Callable[[], float]
    ) -> None:
        self.done = bytearray(layout.count)
        self._folder = folder
        self._layout = layout
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._unsynced_bytes = 0
        self._synced_at = clock()
        self._journal = Journal(folder / "journal")
        try:
            self._take_up()
        except BaseException:
            self._journal.close()
            raise

    def _take_up(self) -> None:
        """Go on from the journal; what was written after its last sync is hashed again."""
        told = ledger.read(self._journal.records, self._layout.count)
        self._journal.records.clear()
        self._entries = told.entries
        lost = set(self._files.wrong(told.unsynced))
        self._unsynced = [number for number in told.unsynced if number not in lost]
        for number in (*told.synced, *self._unsynced):
            self.done[number] = 1
        with self._lock:  # else the next sync would speak of their records as well
            self._note(sorted(lost), here=False)

    def _note(self, numbers: Sequence[int], *, here: bool) -> None:
        """Journal that blocks are here, or are not any more. The lock is held."""
        self._journal.append(*(ledger.here(numbers) if here else ledger.gone(numbers)))
        self._entries += len(numbers)
        for number in numbers:
            self.done[number] = here

    def keep(self, numbers: Sequence[int]) -> None:
        """Blocks were written, and are right.

        Raises:
            OutOfSpace: The disk is full; they aren't here.
        """
        if not numbers:
            return
        with self._lock:
            self._note(numbers, here=True)
            self._unsynced += numbers
            self._unsynced_bytes += sum(map(self._layout.size, numbers))

    def lose(self, numbers: Sequence[int]) -> None:
        """Blocks turned out not to be right: those of them that were here are missing again.

        Raises:
            OutOfSpace: The disk is full; they are still thought to be here.
        """
        self._files.doubt(numbers)
        with self._lock:
            if lost := [number for number in numbers if self.done[number]]:
                self._note(lost, here=False)

    def sync_if_due(self) -> None:
        """Sync when it is time: after so many bytes, or so many seconds.

        Raises:
            OutOfSpace: The disk is full; what wasn't on it yet is missing again.
        """
        with self._lock:
            waiting = self._unsynced_bytes
            due = waiting >= SYNC_BYTES or self._clock() - self._synced_at >= SYNC_SECONDS
        # While one thread syncs the others go on, but not so far that much would be unsynced.
        if due and self._syncing.acquire(blocking=waiting >= 2 * SYNC_BYTES):
            try:
                self._sync()
            finally:
                self._syncing.release()

    def sync(self) -> None:
        """Wait until every block that was written is on the disk, and the journal says so.

        Raises:
            OutOfSpace: The disk is full; what wasn't on it yet is missing again.
        """
        with self._syncing:
            self._sync()

    def _sync(self) -> None:
        with self._lock:
            entries = self._entries
            numbers, self._unsynced = self._unsynced, []
            self._unsynced_bytes = 0
            self._synced_at = self._clock()
        if not numbers:
            return
        try:
            with disk_errors(self._folder):
                self._files.sync({self._layout.locate(number)[0] for number in numbers})
        except BaseException:
            # The next sync would find nothing wrong: the system tells of a write that failed once,
            # and takes it for done from then on.
            self.lose(numbers)
            raise
        try:
            with self._lock:
                self._journal.append(ledger.synced(entries))
            self._journal.sync()
        except BaseException:
            with self._lock:
                self._unsynced += numbers
            raise

    def close(self) -> None:
        """Close the journal, without syncing anything."""
        self._journal.close()
