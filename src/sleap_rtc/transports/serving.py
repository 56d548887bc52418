"""Packages that are given away over links."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import listing_of
from sleap_rtc.errors import Damaged, DataError, FilesMissing, NotFound, PathNotPermitted
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.packing import BlockReader, Packed, pack

_NAMED: Final = 3
"""Files that are named, of those that aren't what they should be."""


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
        Damaged: A file isn't what the record says.
        NotFound: A file is gone.
    """
    if not record.files or record.package is None:
        raise FilesMissing(name=record.id, files="all of them, they are not here yet")
    packed = pack(_places(record.files, directory), root=directory, cache=cache)
    if packed.package.id != record.package:
        right = {file.path: file.blake3 for file in record.files}
        wrong = [path for path, known in packed.file_hashes.items() if known != right.get(path)]
        raise Damaged(
            what=f"{', '.join(wrong[:_NAMED]) or 'The list of files'} of model {record.id}",
            why="it isn't what the record says",
            hint=f"sleap-rtc repair-model {record.id}, where it is, looks for the right one.",
        )
    return ServedPackage(packed)


def serve_part(
    record: ModelRecord,
    directory: Path,
    hashes: Container[str],
    *,
    cache: HashCache | None = None,
) -> ServedPackage:
    """Some of a model's files as a package: those with these hashes that are there and whole.

    Args:
        record: Lists the files.
        directory: The model's directory.
        hashes: BLAKE3 of whole files, as the record has them.
        cache: Hashes of unchanged files.

    Raises:
        FilesMissing: None of them is there.
    """
    wanted = {file.blake3: file for file in record.files if file.blake3 in hashes}
    whole: list[ModelFile] = []
    for file in wanted.values():
        try:
            packed = pack(_places((file,), directory), root=directory, cache=cache)
        except (NotFound, DataError, PathNotPermitted) as error:
            logger.bind(model=record.id, why=str(error)).info("a file can't be served")
            continue
        if packed.file_hashes[file.path] == file.blake3:
            whole.append(file)
    if not whole:
        raise FilesMissing(name=record.id, files="those that are asked for")
    # Small files are hashed once more, big ones come from the cache.
    return ServedPackage(pack(_places(whole, directory), root=directory, cache=cache))


def _places(files: Iterable[ModelFile], directory: Path) -> dict[str, Path]:
    """Where files are: one that was imported by link is opened where its record says."""
    return {f.path: Path(f.link) if f.link else directory / f.path for f in files}
