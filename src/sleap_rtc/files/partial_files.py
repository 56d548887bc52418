"""The files of partial data: their blocks are written in any order, read back, and synced.

Large files are there from the beginning, at their full length; small ones are made when
they have come. What stands in their place without being ours, as a link, is never written
through nor read.

A block is read back as soon as it is written, and compared. It needn't be read once more
in the end unless something else has written to its file since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import UnsafePath
from sleap_rtc.files import buffers
from sleap_rtc.files.beneath import Root
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.handles import Handles
from sleap_rtc.files.holes import is_empty, is_hole
from sleap_rtc.files.readback import ReadBack
from sleap_rtc.files.space import begin_writing, copy_range
from sleap_rtc.files.staged import folders_of

SMALL: Final = 256 * 1024
"""Bytes of the largest file that is made in one step, when its content is there. Has one block."""

_SYNC_TOGETHER: Final = 32
"""From this many files on, one sync of the file system is cheaper than one each."""


def is_small(entry: FileEntry) -> bool:
    """Whether a file is made in one step."""
    return 0 < entry.size <= SMALL


class PartialFiles:
    """The files of a package that is arriving. For several threads.

    Args:
        path: The folder that they are in, which is there.
        layout: The numbers of the package's blocks.

    Raises:
        UnsafePath: The folder is none.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self._entries = layout.package.files
        self._read_back = ReadBack(layout)
        self._root = Root(path)
        self._handles = Handles(self._open)

    def _open(self, file: int) -> int:
        return self._root.open(self._entries[file].path, os.O_RDWR | os.O_CREAT)

    def close(self) -> None:
        """Close the files, without syncing them."""
        self._handles.close()
        self._root.close()

    def use(self, file: int) -> AbstractContextManager[int]:
        """A large file's descriptor, for a block of code; the file is made when it isn't there.

        Args:
            file: Its index in the package.

        Raises:
            UnsafePath: Something that is not ours stands in its place.
        """
        return self._handles.use(file)

    def found(self, file: int) -> os.stat_result | None:
        """What the system says of whatever is at a file's place; None where nothing is.

        Raises:
            UnsafePath: Something that is not ours stands in its place.
        """
        return self._root.look(self._entries[file].path)

    def write(self, number: int, data: Content) -> None:
        """Write a block, and read it back.

        Raises:
            OSError: The disk is full, or doesn't take it.
        """
        file, block = self._layout.locate(number)
        entry = self._entries[file]
        right = False
        if is_small(entry):
            self._make(entry.path, data)
        else:
            with self.use(file) as fd:
                right = buffers.write_and_compare(fd, data, block * BLOCK)
                self._read_back.wrote(file)
        if right:
            self._read_back.add((number,))
        else:
            self._read_back.drop((number,))

    def _make(self, path: str, data: Content) -> None:
        """Make a small file, or make it anew."""
        fd = self._root.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            buffers.write_at(fd, data, 0)
        finally:
            os.close(fd)

    def copy(self, file: int, run: range, source: int) -> bool:
        """Copy neighbouring blocks from the same place in another file; see `PartialStore.copy`."""
        offset = run.start * BLOCK
        size = min(len(run) * BLOCK, self._entries[file].size - offset)
        with self.use(file) as fd:
            if not copy_range(source, fd, offset, size):
                return False
            self._read_back.wrote(file)
        first = self._layout.numbers(file).start
        self._read_back.drop(range(first + run.start, first + run.stop))
        return True

    def begin_writing(self, numbers: Iterable[int]) -> None:
        """Tell the disk to begin with these blocks of large files; nobody waits for it."""
        for number in numbers:
            file, block = self._layout.locate(number)
            if not is_small(self._entries[file]):
                with self.use(file) as fd:
                    begin_writing(fd, block * BLOCK, self._layout.size(number))

    def trust(self, numbers: Sequence[int]) -> None:
        """These blocks were read back since they were written, and are right."""
        self._read_back.add(numbers)

    def doubt(self, numbers: Sequence[int]) -> None:
        """These blocks have to be read, whatever was read back of them."""
        self._read_back.drop(numbers)

    def look(self) -> None:
        """Give large files their lengths again; doubt those that something else has written to.

        Raises:
            UnsafePath: Something else took a file's place.
            OutOfSpace: The disk is full.
        """
        for file, entry in enumerate(self._entries):
            if is_small(entry):
                continue
            with disk_errors(self._path.parent), self.use(file) as fd:
                found, named = os.fstat(fd), self.found(file)
                if named is None or not os.path.samestat(found, named):
                    raise UnsafePath(path=entry.path, why="something else took its place")
                if found.st_size != entry.size:
                    os.ftruncate(fd, entry.size)
                    self.doubt(self._layout.numbers(file))
                self._read_back.look(file, found)

    def unsure(
        self, run: Sequence[int], progress: Callable[[int], None] | None = None
    ) -> list[int]:
        """The wrong ones among blocks, of which those that were read back aren't read again.

        Args:
            run: Numbers of the blocks.
            progress: Told of the bytes of all of them, bit by bit; what it raises ends the check.

        Raises:
            OSError: A file can't be read.
        """
        bad = self.wrong([number for number in run if number not in self._read_back], progress)
        known = sum(self._layout.size(number) for number in run if number in self._read_back)
        if known and progress is not None:
            progress(known)
        return bad

    def wrong(
        self, numbers: Iterable[int], progress: Callable[[int], None] | None = None
    ) -> list[int]:
        """Those of the blocks whose content on the disk doesn't have the right hash.

        Raises:
            OSError: A file can't be read.
        """
        bad: list[int] = []
        memory = buffers.take(BLOCK)
        for number in numbers:
            file, block = self._layout.locate(number)
            entry = self._entries[file]
            size = entry.block_size(block)
            if is_small(entry):
                right = self._is_right(entry, memory)
            else:
                with self.use(file) as fd:
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

    def sync(self, files: Iterable[int]) -> None:
        """Wait until files are on the disk, by their indices in the package.

        Raises:
            OSError: The disk doesn't take them.
        """
        files = list(files)
        if len(files) >= _SYNC_TOGETHER and self._root.sync_file_system():
            return
        for file in files:
            with self.use(file) as fd:
                sync_file(fd)
        # The others' names are on the disk since they were made.
        made = [file for file in files if is_small(self._entries[file])]
        if made:
            self.sync_names(made)

    def sync_names(self, files: Iterable[int]) -> None:
        """Wait until the names of files are on the disk, up to that of the transfer's folder.

        Raises:
            OSError: The disk doesn't take them.
        """
        folders = folders_of(map(self._entries.__getitem__, files))
        if len(folders) < _SYNC_TOGETHER or not self._root.sync_file_system():
            for folder in sorted(folders, reverse=True):
                sync_directory(self._path / folder)
        sync_directory(self._path)
        sync_directory(self._path.parent)
        sync_directory(self._path.parent.parent)
