"""Packages that are given away over links."""

from __future__ import annotations

from pathlib import Path

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.packages import listing_of
from sleap_rtc.errors import FilesMissing, SourceChanged
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import BlockReader, Packed, pack


class ServedPackage:
    """A packed package as the other side fetches it. For several threads.

    Args:
        packed: The package and the places of its content.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self._reader = BlockReader(packed)

    @property
    def listing(self) -> bytes:
        """The canonical listing."""
        return listing_of(self.packed.package.files)

    def read(self, file: int, block: int) -> bytes:
        """One block, checked; see :class:`~sleap_rtc.transports.blocks.Served`."""
        return self._reader.read(file, block)

    def close(self) -> None:
        """Close its files."""
        self._reader.close()


def serve_model(
    record: ModelRecord, directory: Path, *, cache: HashCache | None = None
) -> ServedPackage:
    """A model's files as a package.

    Args:
        record: Lists the files.
        directory: The model's directory.
        cache: Hashes of unchanged files.

    Raises:
        FilesMissing: The record lists no files.
        SourceChanged: The files aren't what the record says.
        NotFound: A file is gone.
    """
    if not record.files or record.package is None:
        raise FilesMissing(name=record.id, files="all of them, they are not here yet")
    packed = pack({f.path: directory / f.path for f in record.files}, root=directory, cache=cache)
    if packed.package.id != record.package:
        raise SourceChanged(path=str(directory))
    return ServedPackage(packed)
