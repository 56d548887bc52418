"""Object storage as a source of blocks: a package whose files lie there by their content.

A store is slow to begin and quick once it sends. So blocks that are asked for at the
same moment, which are neighbours as a rule, are read together, several ranges side
by side::

    block 4 ─┐
    block 5 ─┼─► one read of blocks 4 to 6, each handed over as it arrives
    block 6 ─┘
    block 9 ───► another one

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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, PackageRef
from sleap_rtc.errors import NotFound, SourceChanged, StorageUnreachable
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience, Pauses, Stopped
from sleap_rtc.storage.wire import Connections
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transports.base import Manner

RUN: Final = 8 * BLOCK
"""Bytes that a store is asked for at once, as far as neighbours are wanted."""
IN_FLIGHT: Final = 6
"""Long reads at a time."""
LINKS: Final = 250
"""Links that are asked for at a time."""
MANNER: Final = Manner(window=IN_FLIGHT * RUN, run=RUN)
"""How a transfer asks this source, if it is the only one."""


def manner_beside(size: int) -> Manner:
    """How it is asked beside others: of a small package it doesn't take all at once.

    Args:
        size: Bytes of the package.
    """
    runs = size // (4 * RUN)
    return Manner(window=min(max(runs, 1), IN_FLIGHT) * RUN, run=RUN)


Links = Callable[[Sequence[str]], Sequence[SignedRequest]]
"""Gives fresh links to contents, by their BLAKE3. Blocking; called in threads.

What the store hasn't got may have a link, too, which leads to nothing.
"""

_THREADS: Final = 16
"""Reads at a time, most of them short."""
_READERS: Final = 256
"""Files whose links are kept, those that were read last."""
_EARLY_S: Final = 120.0
"""Seconds before a link ends that it isn't begun with any more."""


class _Wanted(msgspec.Struct, eq=False):
    """A block that somebody waits for."""

    block: int
    size: int
    came: asyncio.Future[bytes]


class StorageSource:
    """Gives the blocks of one package from object storage. For one event loop.

    Args:
        package: The package.
        contents: The BLAKE3 of each of its files, whole, in the package's order.
        links: Gives links to contents.
        name: Names the store in messages and logs.
        patience: With a store that fails, before this source counts as lost.
    """

    def __init__(
        self,
        package: PackageId,
        contents: Sequence[str],
        links: Links,
        *,
        name: str = "storage",
        patience: Patience = Patience(attempts=4, cap=2.0),  # noqa: B008 - it is frozen
    ) -> None:
        self.name = name
        self._package = package
        self._contents = tuple(contents)
        self._pauses = Pauses(patience)
        self._links = _Ahead(self._contents, links, self._pauses)
        self._connections = Connections()
        self._lock = threading.Lock()
        self._readers: OrderedDict[str, RangeReader] = OrderedDict()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._gathered: dict[int, list[_Wanted]] = {}
        self._closed = False

    async def listing(self, ref: PackageRef) -> bytes:
        """The package's listing, which is stored under the package's id: that is its BLAKE3.

        Raises:
            NotFound: It isn't there, or another package is meant.
            StorageUnreachable: The store doesn't answer.
            SleapRtcError: The store says no.
        """
        self._check(ref.id)
        reading = asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: self._reader(ref.id).read(0, ref.listing)
        )
        try:
            return await reading
        except Stopped:
            raise self._gone() from None

    async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
        """The content of one block.

        Raises:
            NotFound: The content isn't there, or another package is meant.
            StorageUnreachable: The store fails for too long, or this source was closed.
            SourceChanged: What is there keeps changing.
            SleapRtcError: The store says no.
        """
        return (await self.bring(package, file, block, size))[0]

    async def bring(
        self, package: PackageId, file: int, block: int, size: int
    ) -> tuple[bytes, Kind]:
        """The same, and the way by which it came.

        Raises:
            SleapRtcError: As :meth:`block`.
        """
        self._check(package)
        if self._closed:
            raise self._gone()
        if not 0 <= file < len(self._contents):
            raise NotFound(message=f"The package has no file {file}.")
        loop = asyncio.get_running_loop()
        wanted = _Wanted(block=block, size=size, came=loop.create_future())
        if not self._gathered:
            loop.call_soon(self._begin_reading, loop)
        self._gathered.setdefault(file, []).append(wanted)
        return await wanted.came, "s3"

    def close(self) -> None:
        """End what is being read; whoever waits is told that the source is gone."""
        self._closed = True
        self._pauses.stop()
        self._connections.abort()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    def _begin_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read what was asked for at this moment."""
        gathered, self._gathered = self._gathered, {}
        for file, wanted in gathered.items():
            for run in _runs(wanted):
                if self._closed:
                    _fail(run, self._gone())
                else:
                    reading = loop.run_in_executor(self._pool, self._read, loop, file, run)
                    reading.add_done_callback(partial(self._ended, run))

    def _ended(self, run: Sequence[_Wanted], reading: asyncio.Future[None]) -> None:
        if reading.cancelled():
            _fail(run, self._gone())
        elif (error := reading.exception()) is not None:
            _fail(run, self._gone() if isinstance(error, Stopped) else error)

    def _read(self, loop: asyncio.AbstractEventLoop, file: int, run: Sequence[_Wanted]) -> None:
        """Read neighbours; in a thread."""
        first = run[0].block

        def take(at: int, data: memoryview) -> None:
            if all(wanted.came.done() for wanted in run):  # nobody waits any more
                raise Stopped
            number = at // BLOCK - first
            content = bytes(data)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_deliver, run[number], content)

        size = sum(wanted.size for wanted in run)
        reader = self._reader(self._contents[file])
        try:
            reader.stream(first * BLOCK, size, take)
        except SourceChanged:
            # Another object with the same content may have taken its place: each block is checked.
            reader.pin(None)
            reader.stream(first * BLOCK, size, take)

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

    def _check(self, package: PackageId) -> None:
        if package != self._package:
            raise NotFound(message=f"{self.name} isn't asked for the package {package[:12]}….")

    def _gone(self) -> StorageUnreachable:
        return StorageUnreachable(store=self.name, why="it isn't read any more")


class _Ahead:
    """Links to the contents of a package, asked for before they are needed. For many threads.

    Args:
        contents: Their BLAKE3, in the order in which they are read as a rule.
        links: Gives links.
        pauses: Say when nothing more is to be asked for.
    """

    def __init__(self, contents: Sequence[str], links: Links, pauses: Pauses) -> None:
        self._contents, self._ask, self._pauses = contents, links, pauses
        self._places = {content: place for place, content in reversed([*enumerate(contents)])}
        self._lock = threading.Lock()
        self._ready: dict[str, SignedRequest] = {}
        self._next = 0

    def link(self, content: str) -> SignedRequest:
        """A link that wasn't given before. Blocks while it is asked for.

        Raises:
            Stopped: Nothing more is to be done.
            SleapRtcError: As asking does.
        """
        with self._lock:
            self._pauses.check()  # many may have waited, and each question may take long
            found = self._ready.pop(content, None)
            if found is not None and found.expires.timestamp() - time.time() > _EARLY_S:
                return found
            place = self._places.get(content, -1)
            wanted = [content, *self._following(place, content)]
            self._ready |= zip(wanted, self._ask(wanted), strict=True)
            if place >= self._next:
                self._next = place + LINKS
            return self._ready.pop(content)

    def _following(self, place: int, content: str) -> list[str]:
        """What will be read next, if it is the first time that links go so far."""
        if place < self._next:
            return []
        following = self._contents[place + 1 : place + LINKS]
        return [each for each in dict.fromkeys(following) if each != content]


def _runs(wanted: Sequence[_Wanted]) -> list[list[_Wanted]]:
    """Neighbours together, :data:`RUN` bytes at most."""
    runs: list[list[_Wanted]] = []
    for each in sorted(wanted, key=lambda one: one.block):
        last = runs[-1] if runs else []
        if last and each.block == last[-1].block + 1 and len(last) * BLOCK < RUN:
            last.append(each)
        else:
            runs.append([each])
    return runs


def _deliver(wanted: _Wanted, content: bytes) -> None:
    if not wanted.came.done():
        wanted.came.set_result(content)


def _fail(run: Sequence[_Wanted], error: BaseException) -> None:
    for wanted in run:
        if not wanted.came.done():
            wanted.came.set_exception(error)
