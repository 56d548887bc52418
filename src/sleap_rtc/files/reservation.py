"""The room that a package takes on the disk, asked for and reserved before its first byte comes.

Large files get their full length at once, and room for all but their empty blocks, which
are holes. Small files are to come, and one file holds the room of all of them
(:mod:`sleap_rtc.files.room`). Where files will share their room with those that they are
copied from, none is reserved for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sleap_rtc.domain.layout import Layout
from sleap_rtc.domain.packages import BLOCK, FileEntry
from sleap_rtc.errors import OutOfSpace, UnsafePath
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.holes import empty_blocks, filled_runs
from sleap_rtc.files.partial_files import PartialFiles, is_small
from sleap_rtc.files.room import Room, room_of
from sleap_rtc.files.space import check_space, reserve, reserve_range

_PER_FILE: Final = 4096
"""Bytes that a file may take on the disk beyond its content."""


class Reservation:
    """The room of one package. Taken by one thread; `use` is for several.

    Args:
        folder: The transfer's folder; the file ``room`` in it holds the room of small files.
        layout: The numbers of the package's blocks.
        files: Their files.
        shared: Whether large files share their room with what they are copied from.

    Attributes:
        empty: Numbers of the blocks that have nothing but zeros: they are never written.
    """

    def __init__(
        self, folder: Path, layout: Layout, files: PartialFiles, *, shared: bool = False
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._entries = layout.package.files
        self._files = files
        self._shared = shared
        self.empty: list[int] = []
        self._holey: dict[int, int] = {}
        for file, entry in enumerate(self._entries):
            if blocks := empty_blocks(entry):
                self._holey[file] = len(blocks)
                self.empty += [layout.number(file, block) for block in blocks]
        self._room = Room(folder / "room")

    def take(self, done: bytearray, *, fresh: bool) -> None:
        """Make the files that aren't there yet, and take the room that they will need.

        Args:
            done: One byte per block, 1 for those that are here, empty ones among them. What turns
                out not to be here is set to 0.
            fresh: Whether there are no files at all yet.

        Raises:
            OutOfSpace: There is no room; what was taken for files that hold nothing is free again.
            UnsafePath: Something that is not ours stands where a file should.
        """
        if fresh:
            lacking = [n for n, entry in enumerate(self._entries) if not is_small(entry)]
            need = self._layout.package.size + len(self._entries) * _PER_FILE
            need -= sum(self._holey.values()) * BLOCK
        else:
            lacking, need = self._lacking(done)
        to_come = sum(
            room_of(entry.size)
            for file, entry in enumerate(self._entries)
            if is_small(entry) and not done[self._layout.numbers(file).start]
        )
        if self._shared:
            need = to_come + len(self._entries) * _PER_FILE
        self._room.drop()
        check_space(self._folder.parent, need)
        try:
            for file in lacking:
                size = self._entries[file].size
                with disk_errors(self._folder, need=size), self._files.use(file) as fd:
                    if os.fstat(fd).st_size > size:
                        os.ftruncate(fd, size)
                    self._reserve_file(fd, file)
            self._room.take(to_come)
        except OutOfSpace:
            self._give_back(lacking, done)
            raise
        if lacking:
            with disk_errors(self._folder):
                self._files.sync_names(lacking)

    def use(self, size: int) -> None:
        """A small file of so many bytes is made next."""
        self._room.use(room_of(size))

    def close(self) -> None:
        """Close what holds room, which goes on holding it."""
        self._room.close()

    def _lacking(self, done: bytearray) -> tuple[list[int], int]:
        """Files that are to be made or aren't whole, and the room that all still have to take."""
        lacking: list[int] = []
        need = 0
        for file, entry in enumerate(self._entries):
            numbers = self._layout.numbers(file)
            if is_small(entry):
                size = self._size_of_small(file)
                if size != entry.size:
                    done[numbers.start] = 0
                need += _PER_FILE if size is None else 0
                need += 0 if done[numbers.start] else room_of(entry.size)
                continue
            with disk_errors(self._folder), self._files.use(file) as fd:
                found = os.fstat(fd)
            _check_names(entry, found)
            missing = done.count(0, numbers.start, numbers.stop) * BLOCK
            if found.st_size == entry.size and not missing:
                continue
            lacking.append(file)
            # What is reserved already is not free any more, and where the file system compresses
            # a whole file takes less than its size: so neither alone tells what is needed.
            need += min(missing, max(0, entry.size - found.st_blocks * 512))
            need += _PER_FILE if found.st_size != entry.size else 0
        return lacking, need

    def _size_of_small(self, file: int) -> int | None:
        """How long a small file is on the disk; None where there is none."""
        with disk_errors(self._folder):
            found = self._files.found(file)
        if found is None:
            return None
        _check_names(self._entries[file], found)
        return found.st_size

    def _reserve_file(self, fd: int, file: int) -> None:
        """Give a file its length and its room; empty blocks are holes."""
        entry = self._entries[file]
        if file not in self._holey and not self._shared:
            reserve(fd, entry.size)
            return
        os.ftruncate(fd, entry.size)
        if self._shared:
            return
        for offset, size in filled_runs(entry):
            if not reserve_range(fd, offset, size):
                break

    def _give_back(self, files: Iterable[int], done: bytearray) -> None:
        """Free the room of files that hold nothing yet: others may need it before we try again."""
        for file in files:
            numbers = self._layout.numbers(file)
            if done.count(1, numbers.start, numbers.stop) == self._holey.get(file, 0):
                with self._files.use(file) as fd:
                    os.ftruncate(fd, 0)


def _check_names(entry: FileEntry, found: os.stat_result) -> None:
    """See that a file of partial data has no second name: it is written to."""
    if found.st_nlink != 1:
        raise UnsafePath(path=entry.path, why="its partial data has a second name")
