"""What has arrived of a package, kept until it is whole and placed.

::

    <incoming>/<package id>-<16 hex digits of the destination's BLAKE3>/
        lock        held by the process that works here
        listing     the package's listing
        files/      the files at full length, with their room on the disk reserved; small ones
                    are made when they have come
        room        the room of small files that are still to come
        journal     which blocks are there

The journal's records, one line each (:mod:`sleap_rtc.files.journal`)::

    w 17        block 17 was handed to the operating system
    x 17        block 17 turned out damaged, and is missing again
    s 40        what the first 40 of the w and x lines tell is on the disk

Blocks of nothing but zeros are never written: they are holes, and here from the beginning.

Data is synced before the ``s`` that speaks of it. When the folder is claimed
again, blocks after the last ``s`` are hashed again: a kill loses none of them,
a power cut loses what the disk didn't get. Each block is hashed as it comes, and
once more as it is read from its file before the files are handed over, whatever
the journal says: what came over a network in the end, what was copied on this
machine while the next is copied.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, FileEntry, Package, listing_of, parse
from sleap_rtc.errors import Damaged, OutOfSpace, SleapRtcError, UnsafePath
from sleap_rtc.files import buffers
from sleap_rtc.files.beneath import Root
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file, write_replacing
from sleap_rtc.files.handles import Handles
from sleap_rtc.files.holdings import FILES, LISTING
from sleap_rtc.files.holes import empty_blocks, filled_runs, is_empty, is_hole
from sleap_rtc.files.journal import Journal
from sleap_rtc.files.room import Room, room_of
from sleap_rtc.files.space import (
    begin_writing,
    check_space,
    copy_range,
    reserve,
    reserve_range,
)
from sleap_rtc.files.staged import Staged

SYNC_BYTES: Final = 64 * 1024 * 1024
SYNC_SECONDS: Final = 2.0
SMALL: Final = 256 * 1024
"""Bytes of the largest file that is made in one step, when its content is there. Has one block."""

_PER_FILE: Final = 4096
"""Bytes that a file may take on the disk beyond its content."""
_SYNC_TOGETHER: Final = 32
"""From this many files on, one sync of the file system is cheaper than one each."""
_CHECKED_AT_ONCE: Final = 64
"""Blocks that one thread checks before it takes others."""


def is_small(entry: FileEntry) -> bool:
    """Whether a file is made in one step."""
    return 0 < entry.size <= SMALL


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
        self, claim: Claim, package: Package, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.layout = Layout(package)
        self.done = bytearray(self.layout.count)
        self._checked = bytearray(self.layout.count)
        self._claim = claim
        self._package = package
        self._path = claim.directory / FILES
        self._clock = clock
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._entries = 0
        self._unsynced_bytes = 0
        self._unsynced_files: set[int] = set()
        self._synced_at = clock()

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
            self._root = Root(self._path)
        self._holey: dict[int, int] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(self._root.close)
            self._handles = Handles(self._open)
            undo.callback(self._handles.close)
            self._journal = undo.enter_context(Journal(claim.directory / "journal"))
            self._room = Room(claim.directory / "room")
            undo.callback(self._room.close)
            self._take_up()
            self._mark_empty()
            self._reserve(fresh=fresh)
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
        # BLAKE3 tells lengths apart as well.
        right = [blake3(data).digest() == self.layout.hash(number) for number, data in parts]
        self.put([part for part, good in zip(parts, right, strict=True) if good])
        return right

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
        entry = self._package.files[file]
        offset = run.start * BLOCK
        size = min(len(run) * BLOCK, entry.size - offset)
        with self._disk(size), self._handles.use(file) as fd:
            if not copy_range(source, fd, offset, size):
                return False
        first = self.layout.numbers(file).start
        self._keep(range(first + run.start, first + run.stop))
        return True

    def put(self, parts: Sequence[tuple[int, Content]]) -> None:
        """Keep blocks that were checked; see `write`.

        Raises:
            OutOfSpace: The disk is full; what is here stays.
        """
        places = [(number, *self.layout.locate(number), data) for number, data in parts]
        files = self._package.files
        size = sum(len(data) for _, data in parts)
        self._room.use(sum(room_of(len(p[3])) for p in places if is_small(files[p[1]])))
        written: list[int] = []
        try:
            with self._disk(size):
                for number, file, block, data in places:
                    if is_small(files[file]):
                        self._make(files[file].path, data)
                    else:
                        with self._handles.use(file) as fd:
                            _write(fd, data, block * BLOCK)
                    written.append(number)
        finally:
            self._keep(written)
        self.sync_if_due()

    def _make(self, path: str, data: Content) -> None:
        """Make a small file, or make it anew."""
        fd = self._root.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            _write(fd, data, 0)
        finally:
            os.close(fd)

    def _keep(self, numbers: Sequence[int]) -> None:
        """Journal that blocks were written."""
        if not numbers:
            return
        with self._lock:
            self._note(numbers, here=True)
            for number in numbers:
                self._unsynced_files.add(self.layout.locate(number)[0])
                self._unsynced_bytes += self.layout.size(number)

    def sync_if_due(self) -> None:
        """Sync when it is time; `put` and `write` do so themselves.

        Raises:
            OutOfSpace: The disk is full.
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
        for number in numbers:
            file, block = self.layout.locate(number)
            if not is_small(self._package.files[file]):
                with self._handles.use(file) as fd:
                    begin_writing(fd, block * BLOCK, self.layout.size(number))
        bad = self._wrong(numbers)
        with self._lock:
            for number in numbers:
                self._checked[number] = 1
            if bad:
                self._note(bad, here=False)
        return bad

    def sync(self) -> None:
        """Wait until every block that was written is on the disk, and the journal says so.

        Raises:
            OutOfSpace: The disk is full.
        """
        with self._syncing:
            self._sync()

    def verify(
        self, *, progress: Callable[[int], None] | None = None, threads: int = 2
    ) -> list[int]:
        """Read and hash every file, and take back the blocks that are not as they should be.

        Those that `check` has found right since they were written aren't read again. What wasn't
        synced yet is, meanwhile: `finish` then waits less for the disk.

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
        self._right_lengths()
        with (
            ThreadPoolExecutor(1, thread_name_prefix="sync") as disk,
            ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool,
        ):
            syncing = disk.submit(self.sync)
            found = pool.map(lambda run: self._unchecked(run, progress), self._runs())
            bad = [number for numbers in found for number in numbers]
            syncing.result()
        with self._lock:
            if lost := [number for number in bad if self.done[number]]:
                self._note(lost, here=False)
        return bad

    def _runs(self) -> list[range]:
        """All blocks, so many together as a thread takes at a time."""
        count, most = self.layout.count, _CHECKED_AT_ONCE
        return [range(first, min(first + most, count)) for first in range(0, count, most)]

    def _unchecked(self, run: range, progress: Callable[[int], None] | None) -> list[int]:
        """The wrong ones among the blocks of a run that weren't checked since they were written."""
        bad = self._wrong([number for number in run if not self._checked[number]], progress)
        known = sum(self.layout.size(number) for number in run if self._checked[number])
        if known and progress is not None:
            progress(known)
        return bad

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
        self._remove_strangers()
        with disk_errors(self._path):
            self._sync_directories(self._package.files)
        self._close_files()
        return Staged(path=self._path, package=self._package, claim=self._claim)

    def close(self) -> None:
        """Sync what is here for a later attempt, and let go of the folder.

        Raises:
            OutOfSpace: The last blocks could not be synced; they will be hashed again.
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
        self._handles.close()
        self._journal.close()
        self._room.close()
        self._root.close()

    def _open(self, file: int) -> int:
        return self._root.open(self._package.files[file].path, os.O_RDWR | os.O_CREAT)

    def _disk(self, need: int | None = None) -> contextlib.AbstractContextManager[None]:
        return disk_errors(self._path, need=need)

    def _note(self, numbers: Sequence[int], *, here: bool) -> None:
        """Journal that blocks are here, or are not any more. The lock is held."""
        kind = b"w" if here else b"x"
        self._journal.append(*(b"%c %d" % (kind, number) for number in numbers))
        self._entries += len(numbers)
        for number in numbers:
            self.done[number] = here
            self._checked[number] = 0

    def _sync(self) -> None:
        with self._lock:
            entries = self._entries
            files, self._unsynced_files = self._unsynced_files, set()
            self._unsynced_bytes = 0
            self._synced_at = self._clock()
        if not files:
            return
        try:
            with self._disk():
                self._sync_files(files)
            with self._lock:
                self._journal.append(b"s %d" % entries)
            self._journal.sync()
        except BaseException:
            with self._lock:
                self._unsynced_files |= files
            raise

    def _sync_files(self, files: Iterable[int]) -> None:
        files = list(files)
        if len(files) >= _SYNC_TOGETHER and self._root.sync_file_system():
            return
        for file in files:
            with self._handles.use(file) as fd:
                sync_file(fd)
        # The others' names are on the disk since they were made.
        made = [entry for entry in map(self._package.files.__getitem__, files) if is_small(entry)]
        if made:
            self._sync_directories(made)

    def _sync_directories(self, entries: Iterable[FileEntry]) -> None:
        """Sync the names of files, up to that of this folder."""
        folders = _folders(entries)
        if len(folders) < _SYNC_TOGETHER or not self._root.sync_file_system():
            for folder in sorted(folders, reverse=True):
                sync_directory(self._path / folder)
        sync_directory(self._path)
        sync_directory(self._path.parent)
        sync_directory(self._path.parent.parent)

    def _reserve(self, *, fresh: bool) -> None:
        """Make the files that aren't there yet, and take the room that they will need."""
        files = self._package.files
        if fresh:
            lacking = [file for file, entry in enumerate(files) if not is_small(entry)]
            need = self._package.size + len(files) * _PER_FILE
            need -= sum(self._holey.values()) * BLOCK
        else:
            lacking, need = self._lacking()
        self._room.drop()
        check_space(self._path, need)
        to_come = (entry.size for file, entry in enumerate(files) if self._is_to_come(file))
        try:
            for file in lacking:
                size = self._package.files[file].size
                with self._disk(size), self._handles.use(file) as fd:
                    if os.fstat(fd).st_size > size:
                        os.ftruncate(fd, size)
                    self._reserve_file(fd, file)
            self._room.take(sum(map(room_of, to_come)))
        except OutOfSpace:
            self._give_back(lacking)
            raise
        if lacking:
            with disk_errors(self._path):
                self._sync_directories(files[file] for file in lacking)

    def _is_to_come(self, file: int) -> bool:
        """Whether a file is a small one that isn't made yet."""
        numbers = self.layout.numbers(file)
        return is_small(self._package.files[file]) and not self.done[numbers.start]

    def _reserve_file(self, fd: int, file: int) -> None:
        """Give a file its length and its room; empty blocks are holes."""
        entry = self._package.files[file]
        if file not in self._holey:
            reserve(fd, entry.size)
            return
        os.ftruncate(fd, entry.size)
        for offset, size in filled_runs(entry):
            if not reserve_range(fd, offset, size):
                break

    def _mark_empty(self) -> None:
        """Empty blocks are here: a file has holes until something is written."""
        for file, entry in enumerate(self._package.files):
            blocks = empty_blocks(entry)
            if blocks:
                self._holey[file] = len(blocks)
            for block in blocks:
                self.done[self.layout.number(file, block)] = 1

    def _lacking(self) -> tuple[list[int], int]:
        """Files that are to be made or aren't whole, and the room that all still have to take."""
        lacking: list[int] = []
        need = 0
        for file, entry in enumerate(self._package.files):
            numbers = self.layout.numbers(file)
            if is_small(entry):
                size = self._size_of_small(entry)
                if size != entry.size:
                    self.done[numbers.start] = 0
                need += _PER_FILE if size is None else 0
                need += 0 if self.done[numbers.start] else room_of(entry.size)
                continue
            with self._disk(), self._handles.use(file) as fd:
                found = os.fstat(fd)
            _check_names(entry, found)
            missing = self.done.count(0, numbers.start, numbers.stop) * BLOCK
            if found.st_size == entry.size and not missing:
                continue
            lacking.append(file)
            # What is reserved already is not free any more, and where the file system compresses
            # a whole file takes less than its size: so neither alone tells what is needed.
            need += min(missing, max(0, entry.size - found.st_blocks * 512))
            need += _PER_FILE if found.st_size != entry.size else 0
        return lacking, need

    def _size_of_small(self, entry: FileEntry) -> int | None:
        """How long a small file is on the disk; None where there is none."""
        with self._disk():
            found = self._root.look(entry.path)
        if found is None:
            return None
        _check_names(entry, found)
        return found.st_size

    def _give_back(self, files: Iterable[int]) -> None:
        """Free the room of files that hold nothing yet: others may need it before we try again."""
        for file in files:
            numbers = self.layout.numbers(file)
            here = self.done.count(1, numbers.start, numbers.stop)
            if here == self._holey.get(file, 0):
                with self._handles.use(file) as fd:
                    os.ftruncate(fd, 0)

    def _take_up(self) -> None:
        """Go on from the journal; what was written after its last sync is hashed again."""
        synced = 0
        written: dict[int, int] = {}
        for record in self._journal.records:
            kind, _, text = record.partition(b" ")
            value = int(text) if text.isdigit() and len(text) < 20 else -1
            if kind == b"s":
                synced = max(synced, value)
                continue
            self._entries += 1
            if not 0 <= value < self.layout.count:
                continue
            if kind == b"w":
                written[value] = self._entries
            else:
                written.pop(value, None)
        self._journal.records.clear()
        lost: list[int] = []
        for number, entry in written.items():
            if entry > synced and self._wrong((number,)):
                lost.append(number)
                continue
            self.done[number] = 1
            if entry > synced:
                self._unsynced_files.add(self.layout.locate(number)[0])
        with self._lock:  # else the next sync would speak of their lines as well
            self._note(lost, here=False)

    def _right_lengths(self) -> None:
        """Give files their lengths again; blocks that this makes wrong are found by hashing."""
        for file, entry in enumerate(self._package.files):
            if is_small(entry):
                continue
            with self._disk(), self._handles.use(file) as fd:
                if os.fstat(fd).st_size != entry.size:
                    os.ftruncate(fd, entry.size)
                    numbers = self.layout.numbers(file)
                    self._checked[numbers.start : numbers.stop] = bytes(len(numbers))

    def _wrong(
        self, numbers: Iterable[int], progress: Callable[[int], None] | None = None
    ) -> list[int]:
        """Those of the blocks whose content on the disk doesn't have the right hash."""
        bad: list[int] = []
        memory = buffers.take(BLOCK)
        for number in numbers:
            file, block = self.layout.locate(number)
            entry = self._package.files[file]
            size = entry.block_size(block)
            if is_small(entry):
                right = self._is_right(entry, memory)
            else:
                with self._handles.use(file) as fd:
                    right = is_empty(entry, block) and is_hole(fd, block * BLOCK, size)
                    if not right:
                        data = memory[: buffers.read_at(fd, memory[:size], block * BLOCK)]
                        right = blake3(data).digest() == entry.block_hash(block)
            if not right:
                bad.append(number)
            if progress is not None:
                progress(size)
        buffers.give_back(memory)
        return bad

    def _is_right(self, entry: FileEntry, memory: memoryview) -> bool:
        """Whether a small file has its content, and nothing behind it."""
        try:
            fd = self._root.open(entry.path)
        except FileNotFoundError:
            return False
        try:
            data = memory[: buffers.read_at(fd, memory[: entry.size + 1], 0)]
        finally:
            os.close(fd)
        return blake3(data).digest() == entry.block_hash(0)

    def _remove_strangers(self) -> None:
        """Remove what the package doesn't list, for example what a failed placement had added."""
        files = {entry.path for entry in self._package.files}
        folders = _folders(self._package.files)
        for here, directories, names in os.walk(self._path, topdown=False):
            base = Path(here)
            prefix = "" if base == self._path else f"{base.relative_to(self._path).as_posix()}/"
            for name in names:
                if prefix + name not in files:
                    (base / name).unlink()
            for name in directories:
                if (base / name).is_symlink():
                    (base / name).unlink()
                elif prefix + name not in folders:
                    (base / name).rmdir()


def _write(fd: int, data: Content, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)


def _check_names(entry: FileEntry, found: os.stat_result) -> None:
    """See that a file of partial data has no second name: it is written to."""
    if found.st_nlink != 1:
        raise UnsafePath(path=entry.path, why="its partial data has a second name")


def _folders(entries: Iterable[FileEntry]) -> set[str]:
    """The paths of all folders that these files are in, without the uppermost."""
    folders: set[str] = set()
    for entry in entries:
        path = entry.path.rpartition("/")[0]
        while path and path not in folders:
            folders.add(path)
            path = path.rpartition("/")[0]
    return folders
