"""Putting a job's files into the room's storage, so that a worker gets them without this machine.

::

    small files, hundreds at a time ──► which are there already?  ──► they stay for another day
                                            │
                                            └── others ──► sent in one piece each ──► confirmed
    large files, one after the other ──► there already? ──► it stays for another day
                                            │
                                            └── no ──► sent in parts, verified by the store
    the listing, named by the package's id ──► the same                      or the server

What is killed goes on: what the store has, files or parts, isn't sent again. What was
begun and never finished is forgotten after a week, by the store after a day. All of it
shares its connections.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.packages import FileEntry, Package, listing_of
from sleap_rtc.errors import NotFound
from sleap_rtc.files.durable import disk_errors, write_replacing
from sleap_rtc.files.packing import Packed
from sleap_rtc.jobs.datasets import NamedFile
from sleap_rtc.storage.objects import LARGEST_PARTS, MAX_WHOLE, part_size_for
from sleap_rtc.storage.remote import RemoteStore
from sleap_rtc.storage.upload import IN_FLIGHT, unfinished, upload_file
from sleap_rtc.storage.upload_many import Moved, Placed, SmallFile, upload_contents
from sleap_rtc.storage.wire import Connections
from sleap_rtc.transfer.progress import Meter, Progress
from sleap_rtc.transfer.rate import TokenBucket

REPORT_S: Final = 0.25
"""Seconds between reports of how far it is."""
FORGOTTEN_S: Final = 7 * 86_400.0
"""Seconds after which nobody goes on with what was begun."""
MOST_ASKED: Final = 20
"""Files, the largest, of which it is asked whether storage has them."""

OnProgress = Callable[[str, Progress], None]
"""Called with a file's name and how far all is, from any thread; what it raises ends it."""


class Stored(msgspec.Struct, frozen=True):
    """What is in storage now.

    Attributes:
        keys: A file's name → its key.
        sent: Bytes that were sent.
        there: Bytes that storage had already.
    """

    keys: dict[str, str]
    sent: int
    there: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much at once.

    Attributes:
        in_flight: Parts that are sent at once.
        largest: Bytes that a part should have at most.
        rate: Bytes per second, None for any.
    """

    in_flight: int = IN_FLIGHT
    largest: int = LARGEST_PARTS
    rate: int | None = None


def bytes_there(store: RemoteStore, files: Sequence[NamedFile]) -> int:
    """How much of these files storage has already; of very many, only the largest count.

    Raises:
        StorageOff: The server keeps no files.
        SleapRtcError: It can't be asked.
    """
    largest = sorted(files, key=lambda file: -file.size)[:MOST_ASKED]
    return sum(file.size for file in largest if _has(store, file))


def store_files(
    store: RemoteStore,
    packed: Packed,
    files: Sequence[NamedFile],
    *,
    state: Path,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
) -> Stored:
    """Put files of a package, and its listing, into storage; what is there already isn't sent.

    Args:
        store: The room's storage.
        packed: The package.
        files: Those of its files that are to be stored.
        state: Folder where unfinished uploads are noted.
        limits: How much at once.
        on_progress: Told of how far it is.

    Raises:
        SourceChanged: A file isn't any more what was packed.
        Busy: Another process of this machine is storing the same.
        StorageOff: The server keeps no files.
        QuotaExceeded: The room has too much there.
        SleapRtcError: It can't be stored; what was is kept, and isn't sent again.
    """
    _forget(state)
    inside = zip(packed.package.files, packed.sources, strict=True)
    found = {entry.path: (Path(source.path), entry) for entry, source in inside}
    filled = [file for file in files if file.size]  # of an empty one there is nothing to fetch
    with contextlib.closing(Connections()) as connections:
        storing = _Storing(
            store,
            packed.package,
            files,
            state=state,
            limits=limits or Limits(),
            on_progress=on_progress,
            connections=connections,
        )
        storing.put_small([(file, *found[file.name]) for file in filled if storing.is_small(file)])
        for file in filled:
            if not storing.is_small(file):
                path, entry = found[file.name]
                storing.put(path, file, entry)
        storing.put_listing()
    keys = {file.name: store.key(file.checksum) for file in filled}
    return Stored(keys=keys, sent=storing.sent, there=storing.there)


class _Storing:
    """Several files: the small ones side by side, then each large one in many parts at once."""

    def __init__(
        self,
        store: RemoteStore,
        package: Package,
        files: Sequence[NamedFile],
        *,
        state: Path,
        limits: Limits,
        on_progress: OnProgress | None,
        connections: Connections,
    ) -> None:
        self._store = store
        self._connections = connections
        self._package = package
        self._state = state
        self._limits = limits
        self._on_progress = on_progress
        self._pace = None if limits.rate is None else _Pace(limits.rate)
        self._lock = threading.Lock()
        self._total = sum(file.size for file in files)
        self._before = 0
        self._meter: Meter | None = None
        self._reported = 0.0
        self.sent = 0
        self.there = 0

    def is_small(self, file: NamedFile) -> bool:
        """Whether a file goes in one piece: no part of it would be smaller."""
        return file.size <= min(MAX_WHOLE, part_size_for(file.size, largest=self._limits.largest))

    def put_small(self, files: Sequence[tuple[NamedFile, Path, FileEntry]]) -> None:
        """Store files that go in one piece each."""
        done = [0] * len(files)
        total = 0

        def moved(index: int, size: int) -> None:
            nonlocal total
            with self._lock:
                total += size - done[index]
                done[index] = size
                if self._meter is None:
                    self._meter = self._fresh_meter(0)
                self._report(files[index][0].name, total)

        placed = self._upload_small(
            [
                SmallFile(path=path, key=self._store.key(file.checksum), entry=entry)
                for file, path, entry in files
            ],
            moved,
        )
        for (file, _, _), each in zip(files, placed, strict=True):
            if each.sent:
                self.sent += file.size
            else:
                self.there += file.size
            self._before += file.size

    def put(self, path: Path, file: NamedFile, entry: FileEntry) -> None:
        """Store one file in parts."""
        key = self._store.key(file.checksum)
        first: list[int] = []

        def progress(done: int) -> None:
            with self._lock:
                if not first:
                    first.append(done)
                    self._meter = self._fresh_meter(done)
                self._report(file.name, done)

        if self._there(key, file.size):
            self.there += file.size
            progress(file.size)
        else:
            self._upload(path, key, entry=entry, progress=progress)
            self.there += first[0]
            self.sent += file.size - first[0]
        self._before += file.size

    def put_listing(self) -> None:
        """Store the listing: its BLAKE3 is the package's id."""
        listing = listing_of(self._package.files)
        key = self._store.key(self._package.id)
        if len(listing) > MAX_WHOLE and self._there(key, len(listing)):
            return
        path = self._state / f"{self._package.id}.listing"
        write_replacing(path, listing)
        try:
            if len(listing) > MAX_WHOLE:
                self._upload(path, key, entry=None, progress=None)
            else:
                self._upload_small([SmallFile(path=path, key=key)], None)
        finally:
            path.unlink(missing_ok=True)

    def _there(self, key: str, size: int) -> bool:
        found = self._store.head(key)
        return found is not None and found.size == size

    def _upload(
        self,
        path: Path,
        key: str,
        *,
        entry: FileEntry | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        with _readable(path):
            upload_file(
                self._store,
                path,
                key,
                state=self._state,
                entry=entry,
                part_size=part_size_for(path.stat().st_size, largest=self._limits.largest),
                in_flight=self._limits.in_flight,
                pace=self._pace,
                progress=progress,
                connections=self._connections,
            )

    def _upload_small(self, files: Sequence[SmallFile], moved: Moved | None) -> list[Placed]:
        with _readable(self._state):
            return upload_contents(
                self._store,
                files,
                in_flight=self._limits.in_flight,
                pace=self._pace,
                moved=moved,
                connections=self._connections,
            )

    def _fresh_meter(self, done: int) -> Meter:
        """One that counts nothing as moved that was there before."""
        now, before = time.monotonic(), self._before + done
        return Meter("storing", done=before, total=self._total, now=now)

    def _report(self, name: str, done: int) -> None:
        """Tell how far all is; the lock is held."""
        if self._on_progress is None or self._meter is None:
            return
        now, all_done = time.monotonic(), self._before + done
        if now - self._reported < REPORT_S and all_done < self._total:
            return
        self._reported = now
        self._on_progress(name, self._meter.update(all_done, now))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say which file can't be read."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise NotFound(message=f"{name} can't be read: {error.strerror}.") from None


class _Pace:
    """Lets bytes go out at a limited rate, whichever thread sends them."""

    def __init__(self, rate: int) -> None:
        self._lock = threading.Lock()
        self._bucket = TokenBucket(rate, now=time.monotonic())

    def __call__(self, size: int) -> None:
        """Wait until so many bytes may go."""
        with self._lock:
            delay = self._bucket.take(size, time.monotonic())
        if delay:
            time.sleep(delay)


def _forget(state: Path) -> None:
    """Make the folder of unfinished uploads, and forget those that nobody goes on with."""
    with disk_errors(state):
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in unfinished(state):
        with contextlib.suppress(OSError):
            newest = max(each.stat().st_mtime for each in (folder, *folder.iterdir()))
            if time.time() - newest > FORGOTTEN_S:
                shutil.rmtree(folder, ignore_errors=True)


def _has(store: RemoteStore, file: NamedFile) -> bool:
    """Whether storage has a file now; asking this leaves it as it is."""
    try:
        store.download_request(store.key(file.checksum))
    except NotFound:
        return False
    return True
