"""Object storage as a source of blocks: a package whose files lie there by their content.

A store is slow to begin and quick once it sends. So neighbouring blocks are read
together, several such runs side by side. Each run is one thread's, which has each
block checked and written before it reads the next, while the processor still has it
in its cache::

    blocks 0 to 31   ─► GET of 32 MiB ─► block 0 kept, block 1 kept …
    blocks 32 to 63  ─► GET of 32 MiB ─► block 32 kept …

Small files are asked for by the dozen, and each such question is one thread's, too,
which reads one after the other over the same connection::

    files 1 to 50   ─► GET, GET, GET …  ─┐
    files 51 to 100 ─► GET, GET, GET …   ├─► handed over together
    …                                   ─┘

Links are asked for ahead, for many files at once: of a package of ten thousand small
files each needs one request to the store, and hardly any to whoever gives the links.

The store is trusted for nothing: whoever asked checks each block.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from blake3 import blake3
from loguru import logger

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import (
    Damaged,
    NotFound,
    SleapRtcError,
    SourceChanged,
    StorageUnreachable,
)
from sleap_rtc.files.buffers import Content
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience, Pauses, Stopped
from sleap_rtc.storage.wire import Connections
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transports.base import Keep, Manner, Place

RUN: Final = 8 * BLOCK
"""Bytes that a store is asked for at once, as far as neighbours are wanted."""
LONGEST: Final = 4 * RUN
"""The same of a large package: each request costs a store about as much as a MiB of it does."""
IN_FLIGHT: Final = 6
"""Long reads at a time."""
LINKS: Final = 250
"""Links that are asked for at a time."""
AT_ONCE: Final = 64
"""Small blocks that are asked for in one question."""


def manner(size: int, *, beside: bool = False) -> Manner:
    """How a transfer asks this source.

    Args:
        size: Bytes of the package.
        beside: Whether others are asked, too: then of a small package it doesn't take all at once.
    """
    run = _run(size)
    most = max(size // (4 * run), 1) if beside else IN_FLIGHT
    return Manner(window=min(most, IN_FLIGHT) * run, run=run)


def _run(size: int) -> int:
    """Bytes of a package of so many that are asked for at once."""
    run = LONGEST
    while run > RUN and size < 4 * IN_FLIGHT * run:
        run //= 2
    return run


Links = Callable[[Sequence[str]], Sequence[SignedRequest]]
"""Gives fresh links to contents, by their BLAKE3. Blocking; called in threads.

What the store hasn't got may have a link, too, which leads to nothing.
"""

_THREADS: Final = 16
"""Reads at a time, most of them short."""
_READERS: Final = 256
"""Files whose links are kept, those that were read last."""
_BLAMED: Final = 16
"""Contents that are noted as wrong: where there are more, more than them is wrong."""
_EARLY_S: Final = 120.0
"""Seconds before a link ends that it isn't begun with any more."""
_LOOK_S: Final = 0.5
"""Seconds between two looks at whether this source was closed, of who waits for another's links."""

T = TypeVar("T")


class _Enough(Exception):
    """Nobody wants the rest."""


class StorageSource:
    """Gives the blocks of one package from object storage. For one event loop.

    Args:
        package: The package.
        contents: The BLAKE3 of each of its files, whole, in the package's order.
        links: Gives links to contents.
        size: Bytes of the package, which decide how much is asked for at once.
        name: Names the store in messages and logs.
        patience: With a store that fails, before this source counts as lost.

    Attributes:
        at_once: Small blocks that one question may be for.
        way: By which blocks come.
        damaged: Contents of which something came that wasn't what it should be, and the store's
            mark of what was read then; empty where that isn't known.
    """

    at_once = AT_ONCE
    way: Kind = "s3"

    def __init__(
        self,
        package: PackageId,
        contents: Sequence[str],
        links: Links,
        *,
        size: int = 0,
        name: str = "storage",
        patience: Patience = Patience(attempts=4, cap=2.0),  # noqa: B008 - it is frozen
    ) -> None:
        self.name = name
        self._package = package
        self._contents = tuple(contents)
        self._run = _run(size) // BLOCK
        self._pauses = Pauses(patience)
        self._links = _Ahead(self._contents, links, self._pauses, aside=self._aside)
        self._connections = Connections()
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, RangeReader] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="links")
        self._closed = False
        self.damaged: dict[str, str] = {}

    async def listing(self, ref: PackageRef) -> bytes:
        """The package's listing, which is stored under the package's id: that is its BLAKE3.

        Raises:
            NotFound: It isn't there, or another package is meant.
            Damaged: It isn't what was stored.
            StorageUnreachable: The store doesn't answer.
            SleapRtcError: The store says no.
        """
        self._check(ref.id)
        try:
            listing = await self._in_thread(lambda: self._reader(ref.id).read(0, ref.listing))
        except Damaged:
            self._blame(ref.id)
            raise
        if blake3(listing).hexdigest() != ref.id:
            self._blame(ref.id)
            raise Damaged(what="The package's listing", why="it isn't what was stored")
        return listing

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        """The content of one block.

        Raises:
            NotFound: The content isn't there, or another package is meant.
            StorageUnreachable: The store fails for too long, or this source was closed.
            SourceChanged: What is there keeps changing.
            Damaged: The store can't read what is there any more.
            SleapRtcError: The store says no.
        """
        return (await self.bring(package, file, block, size))[0]

    async def bring(
        self, package: PackageId, file: int, block: int, size: int
    ) -> tuple[Content, Kind]:
        """The same, and the way by which it came.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        self._check(package, file)
        read = partial(RangeReader.read, offset=block * BLOCK, size=size)
        return await self._in_thread(lambda: self._steadily(file, read)), self.way

    async def several(
        self, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
    ) -> tuple[bytes, Kind]:
        """The content of small blocks, one after the other, and the way by which it came.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        self._check(package, *(file for file, _ in blocks))
        given_up = threading.Event()
        try:
            parts = await self._in_thread(lambda: self._read_all(blocks, sizes, given_up))
        finally:
            given_up.set()
        return b"".join(parts), self.way

    def run(self, file: int) -> int:
        """Blocks of a file that one question may be for."""
        return self._run

    async def pour(
        self, package: PackageId, file: int, first: int, sizes: Sequence[int], keep: Keep
    ) -> None:
        """Have neighbouring blocks of a file kept in a thread, as they arrive.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        self._check(package, file)
        given_up = threading.Event()

        def wanted(number: int, content: Content) -> bool:
            return not given_up.is_set() and keep(number, content)

        try:
            await self._in_thread(lambda: self._pour(file, first, sum(sizes), wanted))
        finally:
            given_up.set()

    def was_wrong(self, file: int) -> None:
        """Note that a block of a file wasn't what it should be."""
        self._blame(self._contents[file])

    def close(self) -> None:
        """End what is being read; whoever waits is told that the source is gone."""
        self._closed = True
        self._pauses.stop()
        self._connections.abort()
        for pool in (self._pool, self._asking):
            pool.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    def _blame(self, content: str) -> None:
        if len(self.damaged) < _BLAMED:
            with self._lock:
                reader = self._readers.get(content)
            self.damaged.setdefault(content, (reader and reader.etag) or "")

    def _pour(self, file: int, first: int, size: int, keep: Keep) -> None:
        """Read neighbours, each of which is kept before the next one is read; in a thread."""
        begin = at = first * BLOCK
        end = begin + size

        def take(where: int, piece: memoryview) -> None:
            nonlocal at
            wanted = keep((where - begin) // BLOCK, piece)
            at = where + len(piece)
            if not wanted and at < end:
                raise _Enough

        with contextlib.suppress(_Enough):
            self._steadily(file, lambda reader: reader.stream(at, end - at, take))

    def _read_all(
        self, places: Sequence[Place], sizes: Sequence[int], given_up: threading.Event
    ) -> list[bytes]:
        """Read blocks of these sizes, until nobody waits for them; in a thread."""
        parts: list[bytes] = []
        for (file, block), size in zip(places, sizes, strict=True):
            if given_up.is_set():
                raise Stopped
            read = partial(RangeReader.read, offset=block * BLOCK, size=size)
            parts.append(self._steadily(file, read))
        return parts

    def _steadily(self, file: int, read: Callable[[RangeReader], T]) -> T:
        """Read of a file, once more if another object has taken its place."""
        reader = self._reader(self._contents[file])
        try:
            return read(reader)
        except SourceChanged:
            # It may be another one with the same content: each block is checked.
            reader.pin(None)
        except Damaged:  # as the store itself says
            self._blame(self._contents[file])
            raise
        try:
            return read(reader)
        except (SourceChanged, Damaged):  # as also what ends too early is
            self._blame(self._contents[file])
            raise

    def _reader(self, content: str) -> RangeReader:
        with self._lock:
            found = self._readers.pop(content, None)
            if found is None:
                found = RangeReader(
                    lambda: self._links.link(content),
                    name=f"content {content[:12]}…",
                    connections=self._connections,
                    pauses=self._pauses,
                )
            self._readers[content] = found
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)
            return found

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do something that blocks.

        Raises:
            StorageUnreachable: This source was closed.
        """
        if self._closed:
            raise self._gone()
        reading = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            await asyncio.wait([reading])
        finally:
            reading.cancel()
        if reading.cancelled():  # by the closing: it hadn't begun
            raise self._gone()
        try:
            return reading.result()
        except Stopped:
            raise self._gone() from None

    def _aside(self, work: Callable[[], None]) -> None:
        """Have something done meanwhile, in a thread."""
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._asking.submit(work)

    def _check(self, package: PackageId, *files: int) -> None:
        if package != self._package:
            raise NotFound(message=f"{self.name} isn't asked for the package {package[:12]}….")
        for file in files:
            if not 0 <= file < len(self._contents):
                raise NotFound(message=f"The package has no file {file}.")

    def _gone(self) -> StorageUnreachable:
        return StorageUnreachable(store=self.name, why="it isn't read any more")


class _Ahead:
    """Links to the contents of a package, asked for before they are needed. For many threads.

    Whoever needs one that is being asked for waits for it, and nobody else does. When half of what
    was asked for is used, the next ones are.

    Args:
        contents: Their BLAKE3, in the order in which they are read as a rule.
        links: Gives links.
        pauses: Say when nothing more is to be asked for.
        aside: Has something done meanwhile, or never.
    """

    def __init__(
        self,
        contents: Sequence[str],
        links: Links,
        pauses: Pauses,
        *,
        aside: Callable[[Callable[[], None]], None],
    ) -> None:
        self._contents, self._ask, self._pauses, self._aside = contents, links, pauses, aside
        self._places = {content: place for place, content in reversed([*enumerate(contents)])}
        self._changed = threading.Condition()
        self._ready: dict[str, SignedRequest] = {}
        self._asked: set[str] = set()
        self._new = bytearray(b"\1") * len(contents)
        self._goes_ahead = False

    def link(self, content: str) -> SignedRequest:
        """A link that wasn't given before. Blocks while it is asked for.

        Raises:
            Stopped: Nothing more is to be done.
            SleapRtcError: As asking does.
        """
        place = self._places.get(content, -1)
        with self._changed:
            while content in self._asked:
                self._changed.wait(_LOOK_S)
                self._pauses.check()
            self._pauses.check()  # each question may take long
            found = self._ready.pop(content, None)
            if found is not None and found.expires.timestamp() - time.time() > _EARLY_S:
                self._go_ahead(place)
                return found
            wanted: list[str] = [content]
            places: list[int] = []
            if place >= 0 and self._new[place]:
                # Readers that begin at once don't come in order: those before are needed, too.
                begin = self._new.rfind(0, 0, place) + 1
                following, places = self._from(max(begin, place - LINKS + 1))
                wanted += (each for each in following if each != content)
            self._asked.update(wanted)
        brought = self._bring(wanted, places)
        with self._changed:
            self._ready.pop(content, None)
        return brought[content]

    def _go_ahead(self, place: int) -> None:
        """Have the next links asked for when those that are here go to an end; it is locked."""
        start = self._new.find(1, max(place, 0))
        if 0 <= start <= place + LINKS // 2 and not self._goes_ahead:
            self._goes_ahead = True
            self._aside(partial(self._ahead, start))

    def _ahead(self, start: int) -> None:
        with self._changed:
            self._goes_ahead = False
            if self._pauses.stopped or not self._new[start]:
                return
            wanted, places = self._from(start)
            self._asked.update(wanted)
        try:
            self._bring(wanted, places)
        except SleapRtcError as error:  # whoever needs one asks again, and is told
            logger.debug("links aren't there ahead: {}", error)

    def _from(self, start: int) -> tuple[list[str], list[int]]:
        """The contents from a place on that nobody has asked for, so many at most; it is locked.

        Returns:
            Them, and the places, which count as asked for from now on.
        """
        places: list[int] = []
        at = self._new.find(1, start)
        while at >= 0 and len(places) < LINKS:
            places.append(at)
            self._new[at] = 0
            at = self._new.find(1, at + 1)
        found = dict.fromkeys(self._contents[place] for place in places)
        wanted = [each for each in found if each not in self._ready and each not in self._asked]
        return wanted, places

    def _bring(self, wanted: Sequence[str], places: Sequence[int]) -> Mapping[str, SignedRequest]:
        """Ask for links; if they don't come nobody has asked for these places."""
        brought: dict[str, SignedRequest] = {}
        try:
            if wanted:
                brought |= zip(wanted, self._ask(wanted), strict=True)
        finally:
            with self._changed:
                if wanted and not brought:
                    for place in places:
                        self._new[place] = 1
                self._ready |= brought
                self._asked.difference_update(wanted)
                self._changed.notify_all()
        return brought
