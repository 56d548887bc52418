"""The blocks of a whole package under one number each.

Blocks are numbered from 0 through all files in the package's order; empty files have none::

    file 0: 2 blocks   file 1: empty   file 2: 3 blocks
    0  1                               2  3  4
"""

from __future__ import annotations

import bisect
import itertools

from sleap_rtc.domain.packages import BLOCK, Package


class Layout:
    """Where each numbered block of a package is.

    Attributes:
        package: The package.
        count: Number of blocks.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        counts = (entry.block_count for entry in package.files)
        self._first = list(itertools.accumulate(counts, initial=0))
        self.count = self._first[-1]

    def number(self, file: int, block: int) -> int:
        """The number of block ``block`` of file ``file``.

        Raises:
            IndexError: There is no such file or block.
        """
        if not 0 <= file < len(self.package.files):
            raise IndexError(f"there is no file {file}")
        number = self._first[file] + block
        if block < 0 or number >= self._first[file + 1]:
            raise IndexError(f"file {file} has no block {block}")
        return number

    def locate(self, number: int) -> tuple[int, int]:
        """File and block within it, for a number from 0 to ``count - 1``."""
        # Empty files share their number with the next file: the last of them is meant.
        file = bisect.bisect_right(self._first, number) - 1
        return file, number - self._first[file]

    def size(self, number: int) -> int:
        """Bytes of the block."""
        # As `locate` and the entry say; this is asked for many times for each block.
        file = bisect.bisect_right(self._first, number) - 1
        return min(BLOCK, self.package.files[file].size - (number - self._first[file]) * BLOCK)

    def hash(self, number: int) -> bytes:
        """The block's BLAKE3, 32 bytes."""
        file, block = self.locate(number)
        return self.package.files[file].block_hash(block)

    def numbers(self, file: int) -> range:
        """The numbers of all blocks of a file."""
        return range(self._first[file], self._first[file + 1])
