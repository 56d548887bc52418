"""A source on this machine: files that are packed here."""

from __future__ import annotations

import asyncio

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import PackageRef, listing_of
from sleap_rtc.errors import NotFound
from sleap_rtc.files.packing import BlockReader, Packed


class LocalSource:
    """Gives the blocks of one package from this machine's files.

    Args:
        packed: The package and its sources.
        name: Names it in messages and logs.
    """

    def __init__(self, packed: Packed, *, name: str = "this machine") -> None:
        self.name = name
        self._package = packed.package
        self._reader = BlockReader(packed)

    async def listing(self, ref: PackageRef) -> bytes:
        """The package's listing.

        Raises:
            NotFound: Another package is meant.
        """
        self._check(ref.id)
        return await asyncio.to_thread(listing_of, self._package.files)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
        """The content of one block.

        Raises:
            NotFound: Another package is meant, there is no such block, or the file is gone.
            SourceChanged: The file isn't any more what was packed.
            UnsafePath: A link took the file's place.
            PathNotPermitted: It may not be read any more.
        """
        self._check(package)
        return await asyncio.to_thread(self._reader.read, file, block)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def _check(self, package: PackageId) -> None:
        if package != self._package.id:
            raise NotFound(message=f"{self.name} doesn't have the package {package[:12]}….")
