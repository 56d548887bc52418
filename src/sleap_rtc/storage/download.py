"""Reading an object from a store: in ranges of one content, several at once, and resumed.

Every range is pinned to one ETag with ``If-Match``: an object that is replaced in
the middle is noticed, and never mixed with the old one. What is known decides how
the bytes are checked:

==========================  ====================================================
``entry``, a package's      each block as it arrives; a bad one is fetched again
file                        alone; a new ETag with the same blocks doesn't matter
``blake3``, of the whole    at the end; a new ETag starts anew
==========================  ====================================================

::

    <partial>/          claimed by the process that works here
      lock, data        the file, its room on the disk taken
      journal           first what it is, then each range that was written

A kill loses nothing of that; what a power cut lost is noticed, as blocks of an
earlier run are read and checked again, and a whole is checked at its end.

:class:`RangeReader` alone is what a source of blocks needs, in a transfer from
several places at once. Memory is a block for each range in flight, whatever the size.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from blake3 import blake3 as new_blake3
from msgspec import Meta

from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import (
    Damaged,
    NetworkError,
    NotFound,
    SleapRtcError,
    SourceChanged,
    StorageRefused,
    StorageUnreachable,
)
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.journal import Journal
from sleap_rtc.files.space import check_space, reserve
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage import xml
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import ANEW, REFUSED, Patience, Pauses, side_by_side
from sleap_rtc.storage.upload import Progress
from sleap_rtc.storage.wire import Connections, Pace, headers_of

RANGE: Final = 16 * BLOCK
"""Bytes that are asked for at once; a whole number of blocks."""
IN_FLIGHT: Final = 10

_EARLY: Final = 60.0
"""Seconds before a link ends that a fresh one is asked for."""
_PER_FILE: Final = 64 * 1024
_SYNC_EVERY: Final = 256 * BLOCK
"""Bytes after which the disk gets them, while others arrive: at the end there is less to wait for.
"""

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class _Of(msgspec.Struct, frozen=True):
    """The first line of a journal: what is being fetched."""

    size: int
    etag: str
    content: str


class RangeReader:
    """Reads ranges of one object, all of the same content. For many threads.

    Args:
        link: Gives a fresh link to the object; asked when the last one ends or is refused.
        name: Names the object in errors.
        etag: The content that is wanted; the first answer decides where it isn't known.
        connections: To be shared with others.
        patience: With a store that fails.
        pace: Called before bytes are read, from any thread; it may wait, or raise to end this.
        wall: Seconds since 1970.
        pauses: To be shared with others, who then stop and wait together; it has its own patience.
    """

    def __init__(
        self,
        link: Callable[[], SignedRequest],
        *,
        name: str,
        etag: str | None = None,
        connections: Connections | None = None,
        patience: Patience = Patience(),  # noqa: B008 - it is frozen
        pace: Pace | None = None,
        wall: Callable[[], float] = time.time,
        pauses: Pauses | None = None,
    ) -> None:
        self._link = link
        self._name = name
        self._etag = etag
        self._connections = connections or Connections()
        self._pauses = pauses or Pauses(patience)
        self._pace = pace
        self._wall = wall
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._current: SignedRequest | None = None

    @property
    def etag(self) -> str | None:
        """The content that all ranges are of; None before the first answer."""
        return self._etag

    def pin(self, etag: str | None) -> None:
        """Read another content from now on; None takes what is there."""
        with self._lock:
            self._etag = etag

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes, as many as are asked for.

        Raises:
            SourceChanged: The object is another than before.
            NotFound: There is none.
            StorageUnreachable: The store fails longer than patience lasts.
            StorageRefused: It says no.
        """
        parts: list[bytes] = []

        def take(_at: int, data: memoryview) -> None:
            parts.append(bytes(data))

        def again() -> None:
            parts.clear()

        self.stream(offset, size, take, again)
        return b"".join(parts)

    def stream(
        self,
        offset: int,
        size: int,
        take: Callable[[int, memoryview], None],
        again: Callable[[], None] = lambda: None,
    ) -> None:
        """Some bytes, block by block as they arrive.

        Args:
            offset: Where they begin.
            size: How many; more than 0.
            take: Given where each piece begins, and its bytes, which are only lent. Pieces are
                whole blocks of the object, or what of one lies in the range.
            again: Called when pieces will be given a second time, as the connection broke.

        Raises:
            SleapRtcError: As for `read`.
        """
        refused = 0
        attempts = self._pauses.patience.attempts
        for attempt in range(1, attempts + 1):
            self._pauses.check()
            try:
                failure = self._attempt(offset, size, take)
            except NetworkError as error:
                failure = error
            if failure is None:
                return
            if not isinstance(failure, NetworkError):
                refused += 1
                if refused >= REFUSED:
                    raise failure
                with self._lock:
                    self._current = None
            if attempt == attempts:
                raise failure
            again()
            self._pauses.back_off(attempt, None)

    def stop(self, *, at_once: bool = False) -> None:
        """End what is being read in other threads, soon.

        Args:
            at_once: Not even after what the store is sending at this moment.
        """
        self._pauses.stop()
        if at_once:
            self._connections.abort()

    def resume(self) -> None:
        """Read again, after `stop`."""
        self._pauses.resume()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _attempt(
        self, offset: int, size: int, take: Callable[[int, memoryview], None]
    ) -> SleapRtcError | None:
        """Ask once; what went wrong is returned when asking again may help."""
        headers = {"range": f"bytes={offset}-{offset + size - 1}"}
        if self._etag is not None:
            headers["if-match"] = f'"{self._etag}"'
        with self._connections.answering(self._fresh(), headers=headers) as response:
            if response.status in (200, 206):
                self._check(response, offset, size)
                self._receive(response, offset, size, take)
                return None
            body = response.read(65_536)
        status, said = response.status, xml.error(body) or f"HTTP {response.status}"
        if status == 412:
            raise SourceChanged(path=self._name)
        if status == 404:
            raise NotFound(message=f"There is no {self._name} in the storage.")
        if status == 416:
            raise SourceChanged(path=self._name)
        if status in AGAIN:
            return StorageUnreachable(store="there", why=said)
        return StorageRefused(store="there", what=f"give {self._name}", why=said)

    def _fresh(self) -> SignedRequest:
        # One thread asks, and the others wait for what it gets.
        with self._asking:
            with self._lock:
                current = self._current
            if current is None or current.expires.timestamp() - self._wall() < _EARLY:
                current = self._link()
                with self._lock:
                    self._current = current
            return current

    def _check(self, response: http.client.HTTPResponse, offset: int, size: int) -> None:
        """Check that an answer is the range that was asked for, of the content that was."""
        headers = headers_of(response)
        etag = headers.get("etag", "").removeprefix("W/").strip('"')
        with self._lock:
            if self._etag is None and etag:
                self._etag = etag
            other = etag and etag != self._etag
        if other:
            raise SourceChanged(path=self._name)
        told = headers.get("content-range", "")
        whole = response.status == 200 and offset == 0
        right = told.startswith(f"bytes {offset}-{offset + size - 1}/")
        if not (right or whole) or response.length not in (None, size):
            raise StorageUnreachable(store="there", why="its answer isn't the range asked for")

    def _receive(
        self,
        response: http.client.HTTPResponse,
        offset: int,
        size: int,
        take: Callable[[int, memoryview], None],
    ) -> None:
        buffer = memoryview(bytearray(min(BLOCK, size)))
        at, end = offset, offset + size
        while at < end:
            # Up to the end of the object's block, so that a block arrives in one piece.
            piece = buffer[: min(BLOCK - at % BLOCK, end - at)]
            self._pauses.check()
            if self._pace is not None:
                self._pace(len(piece))
            filled = 0
            while filled < len(piece):
                got = response.readinto(piece[filled:])
                if not got:
                    raise StorageUnreachable(store="there", why="it hung up in the middle")
                filled += got
            take(at, piece)
            at += len(piece)
        response.read(1)  # nothing follows, and so the connection can be used again


def download_file(
    link: Callable[[], SignedRequest],
    target: Path,
    *,
    partial: Path,
    size: int,
    name: str,
    entry: FileEntry | None = None,
    blake3: Digest | None = None,
    etag: str | None = None,
    in_flight: int = IN_FLIGHT,
    pace: Pace | None = None,
    progress: Progress | None = None,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    connections: Connections | None = None,
) -> None:
    """Fetch an object into a file, which appears when it is whole, checked and on the disk.

    Args:
        link: Gives a fresh link to the object.
        target: The file; what is there is replaced. Its folder exists.
        partial: Folder for what has arrived, on the same file system; it goes away at the end.
        size: Bytes that the object has.
        name: Names it in errors.
        entry: Its blocks, where they are known.
        blake3: The hash of the whole, where that is known; one of the two must be.
        etag: The content that is wanted, where that is known.
        in_flight: Ranges that are fetched at once.
        pace: Called before bytes are read, from any thread; it may wait, or raise to end this.
        progress: Told of how far it is, from any thread; what it raises ends this.
        patience: With a store that fails.
        connections: To be shared with other downloads, which then needn't make their own; who gives
            up this one ends what they do with them.

    Raises:
        Busy: Another process is fetching into ``partial``.
        Damaged: It isn't what it should be, three times over.
        SourceChanged: It keeps changing.
        NotFound: There is none.
        StorageUnreachable: The store fails longer than patience lasts; what is here stays.
        StorageRefused: It says no.
        OutOfSpace: There is no room; what is here stays.
        PathNotPermitted: This user may not write there.
    """
    if entry is None and blake3 is None:
        raise ValueError("without a hash nothing could be checked")
    if entry is not None and entry.size != size:
        raise Damaged(what=name, why=f"it has {size} bytes, and {entry.size} are expected")
    own = Connections() if connections is None else connections
    reader = RangeReader(link, name=name, etag=etag, connections=own, patience=patience, pace=pace)
    try:
        with Claim(partial, what=f"The unfinished download {partial}") as claim:
            for _ in range(ANEW):
                fetching = _Fetching(
                    reader, claim, size, name, entry=entry, blake3=blake3, progress=progress
                )
                try:
                    if fetching.run(in_flight):
                        fetching.place(target)
                        claim.remove()
                        return
                except SourceChanged:
                    if etag is not None:
                        raise
                    # With blocks each is checked anyway, so those that are here stay.
                    reader.pin(None)
                finally:
                    fetching.close()
            raise Damaged(what=name, why="it isn't what was announced, three times over")
    finally:
        if connections is None:
            own.close()


class _Fetching:
    """One attempt to fetch a file."""

    def __init__(
        self,
        reader: RangeReader,
        claim: Claim,
        size: int,
        name: str,
        *,
        entry: FileEntry | None,
        blake3: str | None,
        progress: Progress | None,
    ) -> None:
        self._reader = reader
        self._size = size
        self._name = name
        self._entry = entry
        self._blake3 = blake3
        self._progress = progress
        self._data = claim.directory / "data"
        self._lock = threading.Lock()
        self._here: set[int] = set()
        self._whole = 0
        self._unsynced = 0
        self._under_way: dict[int, int] = {}
        self._journal = Journal(claim.directory / "journal")
        self._fd = -1
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise

    def run(self, in_flight: int) -> bool:
        """Fetch what is missing, and check it; False when it isn't what was announced."""
        lacking = [n for n in range(-(-self._size // RANGE)) if n not in self._here]
        missing = iter(lacking)
        self._report()
        if len(lacking) <= 1:  # no threads for what one can do
            for number in lacking:
                self._fetch(number)
            return self._is_right()
        in_flight = min(in_flight, len(lacking))

        def work() -> None:
            while True:
                with self._lock:
                    number = next(missing, None)
                if number is None:
                    return
                self._fetch(number)

        failure = side_by_side(
            work,
            in_flight,
            name="download",
            stop=self._reader.stop,
            abort=lambda: self._reader.stop(at_once=True),
        )
        self._reader.resume()
        if failure is not None:
            raise failure
        return self._is_right()

    def place(self, target: Path) -> None:
        """Give the file its name."""
        with disk_errors(target):
            sync_file(self._fd)
            self._data.rename(target)
            sync_directory(target.parent)

    def close(self) -> None:
        """Close the files."""
        self._journal.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take_up(self) -> None:
        """Find what is here already, or begin."""
        records = self._journal.records
        of = None
        with contextlib.suppress(msgspec.DecodeError, IndexError):
            of = msgspec.json.decode(records[0], type=_Of)
        if of is not None and self._data.exists() and self._goes_on(of):
            self._open()
            listed = {int(record) for record in records[1:] if record.isdigit()}
            self._here = {number for number in listed if self._is_here(number)}
            self._whole = sum(min(RANGE, self._size - n * RANGE) for n in self._here)
            if self._here:
                return
        self.close()
        self._journal.path.unlink()
        self._data.unlink(missing_ok=True)
        check_space(self._data.parent, self._size + _PER_FILE)
        self._journal = Journal(self._journal.path)
        self._open()

    def _goes_on(self, of: _Of) -> bool:
        """Whether what is here belongs to what is wanted."""
        if (of.size, of.content) != (self._size, self._content()):
            return False
        if self._entry is not None:
            return True
        # The ranges of one content belong together: the others must be of the same.
        if not of.etag or self._reader.etag not in (None, of.etag):
            return False
        self._reader.pin(of.etag)
        return True

    def _is_here(self, number: int) -> bool:
        """Whether a range that was noted is on the disk; without blocks the end will tell."""
        offset = number * RANGE
        for at in range(offset, min(offset + RANGE, self._size), BLOCK):
            size = min(BLOCK, self._size - at)
            if self._is_wrong(at, memoryview(os.pread(self._fd, size, at))):
                return False
        return offset < self._size

    def _open(self) -> None:
        with disk_errors(self._data, need=self._size):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._data, flags, 0o666)
            reserve(self._fd, self._size)

    def _content(self) -> str:
        if self._entry is not None:
            return new_blake3(self._entry.hashes).hexdigest()
        return self._blake3 or ""

    def _of(self) -> _Of:
        return _Of(size=self._size, etag=self._reader.etag or "", content=self._content())

    def _fetch(self, number: int) -> None:
        """Fetch a range, and each block of it that is wrong once more, alone."""
        offset = number * RANGE
        size = min(RANGE, self._size - offset)
        wrong: list[int] = []

        def take(at: int, data: memoryview) -> None:
            if self._is_wrong(at, data):
                wrong.append(at)
                return
            with disk_errors(self._data, need=len(data)):
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, data[written:], at + written)
            with self._lock:
                self._under_way[number] = self._under_way.get(number, 0) + len(data)
            self._report()

        def again() -> None:
            wrong.clear()
            with self._lock:
                self._under_way.pop(number, None)

        self._reader.stream(offset, size, take, again)
        for _ in range(ANEW):
            again_wrong, wrong = wrong, []
            for at in again_wrong:
                self._reader.stream(at, min(BLOCK, self._size - at), take)
        if wrong:
            raise Damaged(what=f"{self._name} in the storage", why=f"block {wrong[0] // BLOCK}")
        with self._lock:
            if not self._here:
                self._journal.append(msgspec.json.encode(self._of()))
            self._journal.append(b"%d" % number)
            self._here.add(number)
            self._whole += size
            self._under_way.pop(number, None)
            self._unsynced += size
            sync = self._unsynced >= _SYNC_EVERY
            if sync:
                self._unsynced = 0
        if sync:
            with disk_errors(self._data):
                sync_file(self._fd)

    def _is_wrong(self, at: int, data: memoryview) -> bool:
        if self._entry is None:
            return False
        return new_blake3(data).digest() != self._entry.block_hash(at // BLOCK)

    def _is_right(self) -> bool:
        """Check the whole where its blocks aren't known; what is wrong is fetched anew."""
        if self._entry is not None:
            return True
        _, hashes = hash_file(self._data, as_path="data")
        if hashes.blake3 == self._blake3:
            return True
        self._journal.path.unlink(missing_ok=True)
        return False

    def _report(self) -> None:
        if self._progress is None:
            return
        with self._lock:
            done = self._whole + sum(self._under_way.values())
        self._progress(done)
