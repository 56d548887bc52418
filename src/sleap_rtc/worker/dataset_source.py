"""The files of one job's inputs as a source of blocks, wherever each of them is.

::

    in the cache            read here           fetched for another job, whichever way
    ``local``               read here           on a disk that whoever submitted the job sees too
    ``s3``                  asked of storage    a source of its own: ``transports/stored.py``
    ``webrtc``              asked of peers      who offer the package

To a transfer all of it is one source. When one of its places fails, it is lost as a
whole, and :attr:`DatasetSource.failure` says why; what has arrived stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, FileEntry, PackageRef, listing_of, package
from sleap_rtc.errors import (
    Cancelled,
    Damaged,
    LinkLost,
    NetworkError,
    SleapRtcError,
    SourceChanged,
    StorageUnreachable,
    UsageError,
)
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import FileHashes, hash_open, stamp_of
from sleap_rtc.jobs.datasets import Dataset, SharedFile, StoredFile, in_order
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transfer.events import SourceId
from sleap_rtc.transports.base import BlockSource, Keep, Place, Several, Sources
from sleap_rtc.transports.stored import AT_ONCE, StorageSource
from sleap_rtc.worker.shared import SharedFolders

QUICKLY: Final = Patience(attempts=4, base=0.25, cap=5.0)
"""With storage: whoever uses the source is patient beyond that."""
_READERS: Final = 4
"""Threads that read this machine's files."""

T = TypeVar("T")


class Places(msgspec.Struct, frozen=True):
    """Where files of jobs may be, for one worker.

    Attributes:
        storage: The room's.
        folders: What its owner permits.
        cache: What was fetched before.
        cache_size: Bytes that it may have.
        hashes: Of unchanged files.
    """

    storage: RoomStorage
    folders: SharedFolders
    cache: FileCache
    cache_size: int
    hashes: HashCache | None = None

    def has(self, each: Dataset) -> bool:
        """Whether a file was fetched before, and is kept."""
        return bool(each.size_bytes) and self.cache.has(each.checksum, each.size_bytes)


class _OnDisk:
    """A file of this machine, kept open."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd, self._path = fd, path

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes of it, perhaps fewer than are asked for."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:  # a disk of another machine, which may come back
            why = error.strerror or "it can't be read"
            raise StorageUnreachable(store=self._path, why=why) from None


class DatasetSource:
    """Gives the blocks of a job's inputs. For one event loop; closed with :meth:`close`.

    Args:
        inputs: The package.
        datasets: All its files.
        places: Where they may be.
        peers: Those who offer the package, as they come and go.

    Attributes:
        at_once: Small blocks that one question may be for.
        way: By which runs of blocks come.
        failure: Why it was lost, once it is.
        cached: Those of its files that were fetched before, as they are kept.
    """

    at_once = AT_ONCE
    way: Kind = "s3"

    def __init__(
        self,
        inputs: PackageRef,
        datasets: Sequence[Dataset],
        *,
        places: Places,
        peers: Sources,
    ) -> None:
        self.failure: SleapRtcError | None = None
        self.cached: list[Path] = []
        self._closing = threading.Event()
        self._inputs = inputs
        self._datasets = in_order(datasets)
        self._places = places
        self._peers = peers
        self._busy: Counter[SourceId] = Counter()
        self._undo = contextlib.ExitStack()
        self._readers: list[_OnDisk | None] = []
        self._known: list[FileEntry | None] = []
        self._stored = StorageSource(
            inputs.id,
            [each.checksum for each in self._datasets],
            self._links,
            size=inputs.size,
            name="the room's storage",
            patience=QUICKLY,
        )
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="datasets")
        self._opened: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """Names it in messages and logs."""
        return "the job's files"

    @property
    def damaged(self) -> dict[str, str]:
        """Contents that storage gave wrong; see `StorageSource`."""
        return self._stored.damaged

    def was_wrong(self, file: int) -> None:
        """Note that a block of a file wasn't what it should be, if storage gave it."""
        if self._way(file) == "s3":
            self._stored.was_wrong(file)

    @property
    def stores(self) -> bool:
        """Whether storage has to be asked for any of it."""
        return any(isinstance(each, StoredFile) for each in self._datasets)

    async def listing(self, ref: PackageRef) -> bytes:
        """The package's listing: made here if all files are, else from storage or from a peer."""
        if ref.id != self._inputs.id:
            raise UsageError(message="Another package than the job's is asked for.")
        await self._open()
        known = [entry for entry in self._known if entry is not None]
        if len(known) == len(self._datasets):
            return await self._in_thread(lambda: listing_of(package(known).files))
        if self.stores:
            return await self._noted(self._stored.listing(ref))
        return await self._of_peer(lambda peer: peer.listing(ref))

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        """The content of one block."""
        await self._open()
        reader = self._readers[file]
        if reader is not None:
            return await self._in_thread(lambda: reader.read(block * BLOCK, size))
        if isinstance(self._datasets[file], StoredFile):
            return await self._noted(self._stored.block(package, file, block, size))
        return await self._of_peer(lambda peer: peer.block(package, file, block, size))

    async def several(
        self, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
    ) -> tuple[Content, Kind]:
        """The content of small blocks, one after the other, and the way by which the first came."""
        await self._open()
        ways = [self._way(file) for file, _ in blocks]
        parts: list[Content] = []
        for way, some in itertools.groupby(range(len(blocks)), key=ways.__getitem__):
            run = [*some]
            places, lengths = [blocks[n] for n in run], [sizes[n] for n in run]
            match way:
                case "local":
                    part: Content = await self._in_thread(partial(self._read, places, lengths))
                case "s3":
                    part, _ = await self._noted(self._stored.several(package, places, lengths))
                case _:
                    ask = partial(_several_of, package=package, blocks=places, sizes=lengths)
                    part = await self._of_peer(ask)
            parts.append(part)
        return _joined(parts), ways[0]

    def run(self, file: int) -> int:
        """Blocks of a file that one question may be for; 0 where it isn't stored."""
        stored = isinstance(self._datasets[file], StoredFile)
        return self._stored.run(file) if stored else 0

    async def pour(
        self, package: PackageId, file: int, first: int, sizes: Sequence[int], keep: Keep
    ) -> None:
        """Have neighbouring blocks of a file that is stored kept, in a thread."""
        await self._open()
        reader = self._readers[file]
        if reader is None:
            await self._noted(self._stored.pour(package, file, first, sizes, keep))
            return
        given_up = threading.Event()

        def read() -> None:
            for number, size in enumerate(sizes):
                content = reader.read((first + number) * BLOCK, size)
                if given_up.is_set() or not keep(number, content):
                    return

        try:
            await self._in_thread(read)
        finally:
            given_up.set()

    async def close(self) -> None:
        """End what is being read, and close the files."""
        self._closing.set()
        # Threads can't be ended, but what they wait for can.
        self._stored.close()
        await asyncio.to_thread(self._places.storage.close)
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        if self._opened is not None:
            await asyncio.wait([self._opened])
            self._opened.cancelled() or self._opened.exception()  # seen, or it would be reported
        self._undo.close()

    # ── opening ──────────────────────────────────────────────────────────────

    async def _open(self) -> None:
        """Open every file, once; whoever comes meanwhile waits."""
        if self._opened is None:
            self._opened = asyncio.ensure_future(self._in_thread(self._open_all))
        await asyncio.shield(self._opened)

    def _open_all(self) -> None:
        for each in self._datasets:
            reader, entry = self._opening(each)
            self._readers.append(reader)
            self._known.append(entry)

    def _opening(self, each: Dataset) -> tuple[_OnDisk | None, FileEntry | None]:
        if not each.size_bytes:
            return None, FileEntry(path=each.name, size=0, hashes=b"")
        cached = self._cached(each)
        if cached is not None:
            return cached, None
        return self._shared(each) if isinstance(each, SharedFile) else (None, None)

    def _cached(self, each: Dataset) -> _OnDisk | None:
        """A file that was fetched before; its blocks are checked like any others."""
        if not self._places.has(each):
            return None
        use = self._places.cache.use(each.checksum, each.size_bytes, _gone)
        try:
            path = self._undo.enter_context(use)
        except _Gone:
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._undo.callback(os.close, fd)
        self.cached.append(path)
        return _OnDisk(fd, str(path))

    def _shared(self, each: SharedFile) -> tuple[_OnDisk, FileEntry]:
        fd = self._places.folders.open(each.path)
        self._undo.callback(os.close, fd)
        if os.fstat(fd).st_size != each.size_bytes:
            raise SourceChanged(path=each.path)
        try:
            hashes = self._hashed(fd, each.path)
        except OSError as error:
            why = error.strerror or "it can't be read"
            raise StorageUnreachable(store=each.path, why=why) from None
        if hashes.blake3 != each.checksum:
            raise Damaged(what=each.path, why="the worker sees another content there")
        entry = FileEntry(path=each.name, size=each.size_bytes, hashes=hashes.blocks)
        return _OnDisk(fd, each.path), entry

    def _hashed(self, fd: int, name: str) -> FileHashes:
        cache = self._places.hashes
        stamp = stamp_of(fd)
        found = None if cache is None else cache.get(stamp)
        if found is None:
            stamp, found = hash_open(fd, name=name, progress=self._check_open)
            if cache is not None:
                cache.put(stamp, found)
        return found

    def _check_open(self, _size: int) -> None:
        if self._closing.is_set():
            raise Cancelled(what="Reading the job's files")

    def _links(self, contents: Sequence[str]) -> Sequence[SignedRequest]:
        store = self._places.storage.open()
        return store.download_requests([store.key(blake3) for blake3 in contents])

    # ── the rest ─────────────────────────────────────────────────────────────

    def _way(self, file: int) -> Kind:
        """How a file comes, once all are opened."""
        if self._readers[file] is not None:
            return "local"
        return "s3" if isinstance(self._datasets[file], StoredFile) else "webrtc"

    def _read(self, blocks: Sequence[Place], sizes: Sequence[int]) -> bytes:
        """Blocks of files of this machine; in a thread."""
        parts: list[bytes] = []
        for (file, block), size in zip(blocks, sizes, strict=True):
            reader = self._readers[file]
            assert reader is not None  # noqa: S101 - it is one of them
            parts.append(reader.read(block * BLOCK, size))
        return b"".join(parts)

    async def _of_peer(self, ask: Callable[[BlockSource], Awaitable[T]]) -> T:
        """Ask somebody who offers the package; somebody else when that one goes.

        Raises:
            LinkLost: Nobody offers it any more.
        """
        asked: set[SourceId] = set()
        why = "it is away"
        while True:
            left = {key: peer for key, peer in self._peers.current.items() if key not in asked}
            if not left:
                self.failure = LinkLost(peer="whoever submitted the job", why=why)
                raise self.failure
            key = min(left, key=self._busy.__getitem__)  # of several connections each has a part
            asked.add(key)
            self._busy[key] += 1
            try:
                return await ask(left[key])
            except NetworkError as error:
                why = error.details.get("why", error.message)
            finally:
                self._busy[key] -= 1

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do something that blocks."""
        return await self._noted(asyncio.get_running_loop().run_in_executor(self._pool, work))

    async def _noted(self, work: Awaitable[T]) -> T:
        """Wait for something; why it fails is kept as the reason."""
        try:
            return await work
        except SleapRtcError as error:
            self.failure = error
            raise


async def _several_of(
    source: BlockSource, *, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
) -> Content:
    """Several blocks, with one question where the source knows such."""
    if isinstance(source, Several) and source.at_once >= len(blocks):
        return (await source.several(package, blocks, sizes))[0]
    each = zip(blocks, sizes, strict=True)
    return _joined([await source.block(package, *place, size) for place, size in each])


def _joined(parts: Sequence[Content]) -> Content:
    """One after the other; the parts' memory is given back, if it isn't the content's."""
    if len(parts) == 1:
        return parts[0]
    content = b"".join(parts)
    for part in parts:
        buffers.give_back(part)
    return content


class _Gone(Exception):
    """It was in the cache an instant ago."""


def _gone(_target: object, _partial: object) -> None:
    raise _Gone
