"""Putting a job's files into the room's storage, so that a worker gets them without this machine.

::

    each file ──► there already? ── yes ──► it stays for another day
                       │
                       └── no ──► uploaded in parts, verified by the store or the server
    the listing, named by the package's id ──► the same

What is killed goes on: parts that the store has aren't sent again. What was begun
and never finished is forgotten after a week, by the store after a day.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.packages import FileEntry, Package, listing_of
from sleap_rtc.errors import NotFound
from sleap_rtc.files.durable import disk_errors, write_replacing
from sleap_rtc.files.packing import Packed
from sleap_rtc.jobs.datasets import NamedFile
from sleap_rtc.storage.objects import LARGEST_PARTS, part_size_for
from sleap_rtc.storage.remote import RemoteStore
from sleap_rtc.storage.upload import IN_FLIGHT, unfinished, upload_file
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
    storing = _Storing(
        store,
        packed.package,
        files,
        state=state,
        limits=limits or Limits(),
        on_progress=on_progress,
    )
    inside = zip(packed.package.files, packed.sources, strict=True)
    found = {entry.path: (Path(source.path), entry) for entry, source in inside}
    keys = {}
    for file in files:
        if file.size:  # of an empty one there is nothing to fetch
            path, entry = found[file.name]
            keys[file.name] = storing.put(path, file, entry)
    storing.put_listing()
    return Stored(keys=keys, sent=storing.sent, there=storing.there)


class _Storing:
    """Several files, one after the other: each goes in many parts at once."""

    def __init__(
        self,
        store: RemoteStore,
        package: Package,
        files: Sequence[NamedFile],
        *,
        state: Path,
        limits: Limits,
        on_progress: OnProgress | None,
    ) -> None:
        self._store = store
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

    def put(self, path: Path, file: NamedFile, entry: FileEntry) -> str:
        """Store one file; its key is returned."""
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
        return key

    def put_listing(self) -> None:
        """Store the listing: its BLAKE3 is the package's id."""
        listing = listing_of(self._package.files)
        key = self._store.key(self._package.id)
        if self._there(key, len(listing)):
            return
        path = self._state / f"{self._package.id}.listing"
        write_replacing(path, listing)
        try:
            self._upload(path, key, entry=None, progress=None)
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
        try:
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
            )
        except OSError as error:
            raise NotFound(message=f"{path} can't be read: {error.strerror}.") from None

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
