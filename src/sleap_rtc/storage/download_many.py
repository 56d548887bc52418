"""Fetching many small objects: links for hundreds at a time, several on their way at once.

::

    wanted ─► links, a batch at a time ─► GET, several at once ─► compared ─► <partial>/<n>
                                                                                  │
           the whole batch on the disk, then each gets its name  ◄────────────────┘

What has its name is whole, checked and on the disk; after a kill the same call
fetches what hasn't. Each content is compared with its hash, and fetched once more
when it is another, up to three times.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import Damaged, SourceChanged
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.space import check_space, sync_file_system
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import MAX_WHOLE, SignedRequest
from sleap_rtc.storage.pausing import ANEW, Patience, Pauses, side_by_side
from sleap_rtc.storage.slices import is_block
from sleap_rtc.storage.wire import Connections, Pace

IN_FLIGHT: Final = 10
BATCH: Final = 500
"""Objects that links are asked for at once."""
BATCH_BYTES: Final = 256 * BLOCK
"""Bytes that they have together, or one object has: so much is on its way to its name."""

_SYNC_TOGETHER: Final = 8
"""Files from which on the whole file system is synced, instead of each file."""

Links = Callable[[Sequence[str]], Sequence[SignedRequest]]
"""Gives fresh links to objects, by their keys."""


class WantedFile(msgspec.Struct, frozen=True):
    """An object that is to be fetched.

    Attributes:
        key: Its name in the store.
        target: The file; what is there is replaced. Its folder exists.
        size: Bytes, `MAX_WHOLE` at most.
        entry: Its blocks, where they are known.
        blake3: The hash of the whole, 64 hex digits, where that is known; one of the two must be.
    """

    key: str
    target: Path
    size: int
    entry: FileEntry | None = None
    blake3: str = ""

    def is_it(self, data: bytes) -> bool:
        """Whether these bytes are what is wanted."""
        if len(data) != self.size:
            return False
        if self.entry is None:
            return blake3(data).hexdigest() == self.blake3
        view = memoryview(data)
        pieces = ((at, view[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
        return all(is_block(self.entry, at, piece) for at, piece in pieces)


def download_contents(
    links: Links,
    wanted: Sequence[WantedFile],
    *,
    partial: Path,
    in_flight: int = IN_FLIGHT,
    pace: Pace | None = None,
    arrived: Callable[[int], None] | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    connections: Connections | None = None,
) -> None:
    """Fetch small objects into files, each of which appears when it is whole and checked.

    Args:
        links: Gives links.
        wanted: In any number.
        partial: Folder for what has arrived, on the files' file system; it goes away at the end.
        in_flight: Objects that are fetched at once.
        pace: Called before bytes are read, from any thread; it may wait, or raise to end this.
        arrived: Told of the index of what has arrived, from any thread; what it raises ends this.
        patience: With a store that fails.
        connections: To be shared with other downloads; who gives up this one ends what they do
            with them.

    Raises:
        Busy: Another process is fetching into ``partial``.
        Damaged: One isn't what it should be, three times over.
        NotFound: There is none.
        StorageUnreachable: The store fails longer than patience lasts; what has its name stays.
        StorageRefused: It says no.
        OutOfSpace: There is no room.
        PathNotPermitted: This user may not write there.
    """
    for each in wanted:
        if each.entry is None and not each.blake3:
            raise ValueError("without a hash nothing could be checked")
        if each.size > MAX_WHOLE or (each.entry is not None and each.entry.size != each.size):
            raise Damaged(what=each.key, why=f"it has {each.size} bytes")
    with ExitStack() as ending:
        wire = connections
        if wire is None:
            wire = Connections()
            ending.callback(wire.close)
        claim = ending.enter_context(Claim(partial, what=f"The unfinished download {partial}"))
        check_space(partial, sum(each.size for each in wanted))
        fetching = _Fetching(
            links, wanted, claim.directory, pace=pace, arrived=arrived, patience=patience, wire=wire
        )
        for batch in _batches(wanted):
            fetching.fetch(batch, in_flight)
        claim.remove()


class _Fetching:
    """Many objects on their way."""

    def __init__(
        self,
        links: Links,
        wanted: Sequence[WantedFile],
        folder: Path,
        *,
        pace: Pace | None,
        arrived: Callable[[int], None] | None,
        patience: Patience,
        wire: Connections,
    ) -> None:
        self._links, self._wanted, self._folder = links, wanted, folder
        self._pace, self._arrived = pace, arrived
        self._pauses, self._connections = Pauses(patience), wire

    def fetch(self, batch: Sequence[int], in_flight: int) -> None:
        """Fetch some of them, side by side, and give them their names."""
        keys = [self._wanted[index].key for index in batch]
        requests = self._pauses.patiently(lambda: self._links(keys))
        work = iter(zip(batch, requests, strict=True))
        lock = threading.Lock()

        def some() -> None:
            while not self._pauses.stopped:
                with lock:
                    index, request = next(work, (-1, None))
                if request is None:
                    return
                self._fetch(index, request)

        fetchers = max(1, min(in_flight, len(batch)))

        def abort() -> None:
            self._pauses.stop()
            self._connections.abort()

        failure = side_by_side(some, fetchers, name="download", stop=self._pauses.stop, abort=abort)
        if failure is not None:
            raise failure
        self._place(batch)

    def _fetch(self, index: int, request: SignedRequest) -> None:
        """Fetch one, as often as it takes to be what is wanted."""
        each = self._wanted[index]
        given: list[SignedRequest] = [request]

        def link() -> SignedRequest:
            return given.pop() if given else self._links([each.key])[0]

        data = b""
        for _ in range(ANEW):
            if each.size:
                data = self._read(each, link)
            if each.is_it(data):
                break
        else:
            raise Damaged(what=f"{each.key} in the storage", why="it isn't what was announced")
        path = self._folder / str(index)
        with disk_errors(path, need=each.size):
            path.write_bytes(data)
        if self._arrived is not None:
            self._arrived(index)

    def _read(self, each: WantedFile, link: Callable[[], SignedRequest]) -> bytes:
        reader = RangeReader(
            link,
            name=each.key,
            connections=self._connections,
            patience=self._pauses.patience,
            pace=self._pace,
            pauses=self._pauses,
        )
        try:
            return reader.read(0, each.size)
        except SourceChanged:  # it is shorter, or was replaced in the middle: once more
            return b""

    def _place(self, batch: Sequence[int]) -> None:
        """Give what has arrived its name, once it is on the disk."""
        folders = {self._wanted[index].target.parent for index in batch}
        with disk_errors(self._folder):
            together = False
            if len(batch) >= _SYNC_TOGETHER:
                fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    together = sync_file_system(fd)
                finally:
                    os.close(fd)
            for index in batch:
                path = self._folder / str(index)
                if not together:
                    fd = os.open(path, os.O_RDONLY)
                    try:
                        sync_file(fd)
                    finally:
                        os.close(fd)
                path.rename(self._wanted[index].target)
            for folder in folders:
                sync_directory(folder)


def _batches(wanted: Sequence[WantedFile]) -> list[list[int]]:
    """Objects in lots, each of so many and of so many bytes."""
    made: list[list[int]] = [[]]
    size = 0
    for index, each in enumerate(wanted):
        if made[-1] and (len(made[-1]) == BATCH or size + each.size > BATCH_BYTES):
            made.append([])
            size = 0
        made[-1].append(index)
        size += each.size
    return made if wanted else []
