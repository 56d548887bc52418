"""What has arrived of a package, kept until it is whole and placed.

::

    <incoming>/<package id>-<16 hex digits of the destination's BLAKE3>/
        lock        held by the process that works here
        listing     the package's listing
        files/      the files at full length, with their room on the disk reserved; small ones
                    are made when they have come
        room        the room of small files that are still to come
        journal     which blocks are there

Blocks of nothing but zeros are never written: they are holes, and here from the beginning.

Data is synced before the journal (:mod:`sleap_rtc.files.blockmap`) says so. When the
folder is claimed again, blocks of which it doesn't say so are hashed again: a kill loses
none of them, a power cut loses what the disk didn't get. When the disk can't be written
to, the blocks that it should have got are missing again: it says so only once, and what
is read back still comes from memory.

Each block is hashed as it comes, read back as soon as it is written, and compared.
What was copied on this machine is hashed as it is read back, while the next is
copied. In the end all else is read and hashed before the files are handed over,
whatever the journal says: what came in an earlier attempt, small files, and files
that something else has written to since.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import Package, listing_of, parse
from sleap_rtc.errors import Damaged, SleapRtcError, UnsafePath
from sleap_rtc.files.blockmap import BlockMap
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import disk_errors, write_replacing
from sleap_rtc.files.holdings import FILES, LISTING
from sleap_rtc.files.partial_files import PartialFiles, is_small
from sleap_rtc.files.reservation import Reservation
from sleap_rtc.files.staged import Staged, remove_others

_CHECKED_AT_ONCE: Final = 64
"""Blocks that one thread checks before it takes others."""


def folder_of(incoming: Path, package: PackageId, destination: str) -> Path:
    """Where the partial data of a package for a destination is.

    Args:
        incoming: The folder of all partial data, on the destination's file system.
        package: Its id.
        destination: Names where the package will go, for example the final path.
    """
    return incoming / f"{package}-{blake3(destination.encode()).hexdigest()[:16]}"


def claim_partial(incoming: Path, package: PackageId, destination: str) -> Claim:
    """Claim the partial data of a package for a destination, if there is any yet or not.

    Raises:
        Busy: Another process is fetching the same for the same place.
        OutOfSpace: Not even a folder can be made.
        PathNotPermitted: This user may not write there.
    """
    folder = folder_of(incoming, package, destination)
    return Claim(folder, what=f"The unfinished transfer {folder}")


def known_listing(claim: Claim, package: PackageId) -> Package | None:
    """The package whose listing was kept in a claimed folder; None when it is not there whole."""
    try:
        return parse((claim.directory / LISTING).read_bytes(), expect=package)
    except (OSError, SleapRtcError):
        return None


class PartialStore:
    """The partial data of one package, in a claimed folder. For several threads.

    Args:
        claim: From `claim_partial`; it is released by `close`, or goes to what `finish` returns.
        package: What is being fetched.
        shared: Whether large files are copied from where they share their room on the disk: then
            none is reserved for them.
        clock: Seconds, monotonic; decides when to sync.

    Attributes:
        layout: The numbers of the package's blocks.
        done: One byte per block, 1 for those that are here.

    Raises:
        OutOfSpace: There is no room for what is missing.
        PathNotPermitted: This user may not write there.
        UnsafePath: Something that is not ours stands where a file should.
    """

    def __init__(
        self,
        claim: Claim,
        package: Package,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = Layout(package)
        self._claim = claim
        self._package = package
        self._path = claim.directory / FILES

        if known_listing(claim, package.id) is None:
            write_replacing(claim.directory / LISTING, listing_of(package.files))
        with disk_errors(self._path):
            if self._path.is_symlink():
                raise UnsafePath(path=str(self._path), why="it is a link")
            fresh = not self._path.exists()
            if fresh:
                # A kill right after the files were placed leaves the journal that tells of them.
                (claim.directory / "journal").unlink(missing_ok=True)
            self._path.mkdir(exist_ok=True)
        with contextlib.ExitStack() as undo:
            self._files = PartialFiles(self._path, self.layout)
            undo.callback(self._files.close)
            self._map = BlockMap(claim.directory, self.layout, self._files, clock=clock)
            undo.callback(self._map.close)
            self.done = self._map.done
            self._reservation = Reservation(
                claim.directory, self.layout, self._files, shared=shared
            )
            undo.callback(self._reservation.close)
            for number in self._reservation.empty:
                self.done[number] = 1
            self._reservation.take(self.done, fresh=fresh)
            undo.pop_all()

    @property
    def here(self) -> int:
        """Bytes that are here."""
        size = self._package.size
        return size - sum(self.layout.size(n) for n, done in enumerate(self.done) if not done)

    def write(self, parts: Sequence[tuple[int, Content]]) -> list[bool]:
        """Check blocks and keep them.

        Args:
            parts: Numbers of blocks, each with its content as it arrived; that stays the caller's.

        Returns:
            For each of them, False when it is not what the listing says; it wasn't written then.

        Raises:
            OutOfSpace: The disk is full; what is here stays.
        """
        return self._keep_all(parts, checked=False)

    def copy(self, file: int, run: range, source: int) -> bool:
        """Copy neighbouring blocks from the same place in another file, as they are.

        Where the file system can, both files share what is on the disk. Nothing waits for the disk:
        see `sync_if_due`.

        Args:
            file: Index of the file in the package; it isn't a small one.
            run: Indices of its blocks.
            source: An open file.

        Returns:
            False where the kernel can't copy.

        Raises:
            OutOfSpace: The disk is full.
        """
        first = self.layout.numbers(file).start
        numbers = range(first + run.start, first + run.stop)
        with self._disk(sum(map(self.layout.size, numbers))):
            if not self._files.copy(file, run, source):
                return False
        self._map.keep(numbers)
        return True

    def put(self, parts: Sequence[tuple[int, Content]]) -> None:
        """Keep blocks that were checked, and see that they can be read back; see `write`.

        Raises:
            OutOfSpace: The disk is full; what is here stays.
        """
        self._keep_all(parts, checked=True)

    def _keep_all(self, parts: Sequence[tuple[int, Content]], *, checked: bool) -> list[bool]:
        """Keep blocks, one after the other: what was just hashed is in the processor's cache."""
        right: list[bool] = []
        written: list[int] = []
        try:
            with self._disk(sum(len(data) for _, data in parts)):
                for number, data in parts:
                    # BLAKE3 tells lengths apart as well.
                    right.append(checked or blake3(data).digest() == self.layout.hash(number))
                    if not right[-1]:
                        continue
                    if is_small(self._package.files[self.layout.locate(number)[0]]):
                        self._reservation.use(len(data))
                    self._files.write(number, data)
                    written.append(number)
        finally:
            self._map.keep(written)
        self._map.sync_if_due()
        return right

    def sync_if_due(self) -> None:
        """Sync when it is time; `put` and `write` do so themselves.

        Raises:
            OutOfSpace: The disk is full.
        """
        self._map.sync_if_due()

    def neighbours(self) -> list[Path]:
        """The folders of other partial data beside this one."""
        own = self._claim.directory
        return [path for path in sorted(own.parent.iterdir()) if path != own and path.is_dir()]

    def missing(self, file: int) -> list[int]:
        """The blocks of a file that aren't here, by their indices in it."""
        numbers = self.layout.numbers(file)
        here = self.done[numbers.start : numbers.stop]
        return [block for block, there in enumerate(here) if not there]

    def check(self, numbers: Sequence[int]) -> list[int]:
        """Read and hash blocks that were just written, so that `verify` needn't.

        The disk is told to begin with them: left to itself it would begin in the end, and
        everybody would wait for it.

        Returns:
            Those that are not as they should be; they aren't here any more.

        Raises:
            UnsafePath: Something else took a file's place.
            OSError: A file can't be read.
        """
        self._files.begin_writing(numbers)
        bad = self._files.wrong(numbers)
        self._files.trust(numbers)
        self._map.lose(bad)
        return bad

    def sync(self) -> None:
        """Wait until every block that was written is on the disk, and the journal says so.

        Raises:
            OutOfSpace: The disk is full; what wasn't on it yet is missing again.
        """
        self._map.sync()

    def verify(
        self, *, progress: Callable[[int], None] | None = None, threads: int = 2
    ) -> list[int]:
        """Read and hash every file, and take back the blocks that are not as they should be.

        Those that were read back since they were written aren't read again, unless something else
        has written to their file. What wasn't synced yet is, meanwhile: `finish` then waits less
        for the disk.

        Args:
            progress: Told of the bytes that were just checked, from any of the threads; what it
                raises ends the check.
            threads: How many read at once.

        Returns:
            Numbers of the blocks that must be fetched again; empty when all is well.

        Raises:
            UnsafePath: Something else took a file's place.
            OutOfSpace: The disk is full.
            OSError: A file can't be read.
        """
        self._files.look()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="sync") as disk,
            ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool,
        ):
            syncing = disk.submit(self.sync)
            found = pool.map(lambda run: self._files.unsure(run, progress), self._runs())
            bad = [number for numbers in found for number in numbers]
            syncing.result()
        self._map.lose(bad)
        return bad

    def _runs(self) -> list[range]:
        """All blocks, so many together as a thread takes at a time."""
        count, most = self.layout.count, _CHECKED_AT_ONCE
        return [range(first, min(first + most, count)) for first in range(0, count, most)]

    def finish(self) -> Staged:
        """Hand over the files, which `verify` has found whole; nothing else is in their folder.

        Returns:
            The staged folder, which now has the claim; this store is closed.

        Raises:
            Damaged: A block is missing.
            OutOfSpace: The disk is full.
        """
        missing = self.done.count(0)
        if missing:
            raise Damaged(what=str(self._path), why=f"{missing} blocks are missing")
        self.sync()
        remove_others(self._path, self._package)
        with disk_errors(self._path):
            self._files.sync_names(range(len(self._package.files)))
        self._close_files()
        return Staged(path=self._path, package=self._package, claim=self._claim)

    def close(self) -> None:
        """Sync what is here for a later attempt, and let go of the folder.

        Raises:
            OutOfSpace: The last blocks could not be synced; they will be fetched again.
        """
        try:
            self.sync()
        finally:
            self._close_files()
            self._claim.release()

    def discard(self) -> None:
        """Remove everything that has arrived."""
        self._close_files()
        self._claim.remove()

    def _close_files(self) -> None:
        self._files.close()
        self._map.close()
        self._reservation.close()

    def _disk(self, need: int | None = None) -> contextlib.AbstractContextManager[None]:
        return disk_errors(self._claim.directory, need=need)
