"""Copying what this machine has already into partial data, instead of fetching it.

::

    walk the folders ─► begins as a wanted file ─► small: its content, which was just read, is kept
                                                   large: copied by the kernel ─► read back, hashed
                                                          16 MiB                  16 MiB
                                                                 16 MiB                  16 MiB

Small files are written by other threads, many at a time, while the next are looked for; of large
ones each piece is read from where it was copied to, and hashed, while the next is copied.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files import buffers
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.holdings import candidates
from sleap_rtc.files.partial import PartialStore
from sleap_rtc.files.partial_files import is_small

_AT_ONCE: Final = 16
"""Blocks of a large file that are copied by one call."""
_TOGETHER: Final = 128
"""Small files that are written by one call, at most."""
_AHEAD: Final = 4
"""Calls that may wait for a thread: what they hold is in memory."""
_THREADS: Final = 2
"""While one waits for the disk, the other goes on."""

Progress = Callable[[int], None]
"""Told of the bytes that were just copied; what it raises ends the copying."""


def fill(
    store: PartialStore,
    folders: Sequence[Path],
    *,
    cache: HashCache | None = None,
    progress: Progress | None = None,
    likely: bool = False,
) -> int:
    """Copy what this machine has already, under whatever name, and needn't be fetched.

    Every block is checked. Where the file system can, the copy of a large file shares the disk's
    blocks with the original.

    Args:
        store: What is to be filled.
        folders: Where to look, beside the partial data of other transfers.
        cache: Hashes of unchanged big files, which spare reading them.
        progress: Told of the bytes that were just copied.
        likely: Whether a file that begins as a wanted one is it: then it is copied as it is, and
            checked where it has arrived. Else it is checked before.

    Returns:
        Bytes that were copied and are right.

    Raises:
        OutOfSpace: The disk is full; what is here stays.
    """
    filling = _Filling(store, progress=progress, likely=likely)
    package = store.layout.package
    lacking = {file for file in range(len(package.files)) if store.missing(file)}
    others = store.neighbours()
    if likely:  # what is arriving elsewhere isn't whole
        others = []
    with filling:
        found = candidates(package, lacking, folders, partial=others, cache=cache, follow=likely)
        for file, fd in found:
            if filling.take(file, fd):
                lacking.discard(file)
    return filling.copied


class _Filling:
    """One search, and the threads that work behind it."""

    def __init__(self, store: PartialStore, *, progress: Progress | None, likely: bool) -> None:
        self.copied = 0
        self._store = store
        self._progress = progress
        self._likely = likely
        self._small: list[tuple[int, bytes]] = []
        self._bytes = 0
        self._ahead: deque[Future[int]] = deque()
        self._undo = ExitStack()

    def __enter__(self) -> _Filling:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="filling")
        self._pool = self._undo.enter_context(pool)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._undo:
            if kind is None:
                self._write_small()
                self._settle(0)
            else:
                self._pool.shutdown(cancel_futures=True)

    def take(self, file: int, fd: int) -> bool:
        """Copy what can be of a wanted file from another one; returns whether it lacks no more."""
        if is_small(self._store.layout.package.files[file]):
            return self._take_small(file, fd)
        for run in _runs(self._store.missing(file), _AT_ONCE if self._likely else 1):
            if not self._copied(file, fd, run):
                for block in run:
                    self._copy_checked(file, fd, block)
        return not self._store.missing(file)

    def _take_small(self, file: int, fd: int) -> bool:
        entry = self._store.layout.package.files[file]
        try:
            data = os.pread(fd, entry.size, 0)
        except OSError:
            return False
        if blake3(data).digest() != entry.block_hash(0):
            return False
        self._small.append((self._store.layout.number(file, 0), data))
        self._bytes += entry.size
        if len(self._small) == _TOGETHER or self._bytes >= BLOCK:
            self._write_small()
        return True

    def _copied(self, file: int, fd: int, run: range) -> bool:
        """Copy neighbours as they are, and have them checked behind."""
        if not self._likely or not self._store.copy(file, run, fd):
            return False
        first = self._store.layout.numbers(file).start
        numbers = range(first + run.start, first + run.stop)

        def check() -> int:
            wrong = set(self._store.check(numbers))
            self._store.sync_if_due()
            return sum(self._store.layout.size(n) for n in numbers if n not in wrong)

        self._submit(check)
        return True

    def _copy_checked(self, file: int, fd: int, block: int) -> None:
        """Copy one block, if it is right there."""
        entry = self._store.layout.package.files[file]
        memory = buffers.take(entry.block_size(block))
        try:
            try:
                data = memory[: buffers.read_at(fd, memory, block * BLOCK)]
            except OSError:
                return
            if blake3(data).digest() == entry.block_hash(block):
                if not self._store.copy(file, range(block, block + 1), fd):
                    self._store.put([(self._store.layout.number(file, block), data)])
                self._store.sync_if_due()
                self._count(len(data))
        finally:
            buffers.give_back(memory)

    def _write_small(self) -> None:
        parts, self._small, self._bytes = self._small, [], 0

        def write() -> int:
            self._store.put(parts)
            return sum(len(data) for _, data in parts)

        if parts:
            self._submit(write)

    def _submit(self, work: Callable[[], int]) -> None:
        self._ahead.append(self._pool.submit(work))
        self._settle(_AHEAD)

    def _settle(self, most: int) -> None:
        """Wait until so many calls are left, and count what the others have done."""
        while self._ahead and (len(self._ahead) > most or self._ahead[0].done()):
            self._count(self._ahead.popleft().result())

    def _count(self, size: int) -> None:
        self.copied += size
        if size and self._progress is not None:
            self._progress(size)


def _runs(blocks: Sequence[int], most: int) -> Iterator[range]:
    """Neighbours together, so many of them at most."""
    start = 0
    for at, block in enumerate(blocks, 1):
        last = at == len(blocks) or blocks[at] != block + 1
        if last or at - start == most:
            yield range(blocks[start], block + 1)
            start = at
