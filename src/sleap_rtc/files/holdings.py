"""Finding, among the files of this machine, content that a package lacks.

Nothing is remembered of what is where, so nothing can be out of date. Folders
are walked, and a file counts as a candidate when

- it has the size of a wanted file, and the same first block; or
- it is partial data of another transfer, whose listing names the same content.

A candidate is only that: whoever copies it checks every block.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, MAX_LISTING, FileEntry, Package, parse
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import stamp_of

MAX_LOOKED_AT: Final = 200_000
"""Names that are looked at in one search: two seconds of a local disk."""

LISTING: Final = "listing"
FILES: Final = "files"
"""Names in a folder of partial data."""


def candidates(
    package: Package,
    lacking: set[int],
    folders: Sequence[Path],
    *,
    partial: Sequence[Path] = (),
    cache: HashCache | None = None,
    follow: bool = False,
) -> Iterator[tuple[int, int]]:
    """Files of this machine that may have what files of a package should have.

    Args:
        package: What is wanted.
        lacking: Indices of its files that are wanted. The caller takes out what it got: nothing
            more is looked for then, and the search ends when it is empty.
        folders: Where to look, at any depth; links to folders are not followed.
        partial: Folders of other transfers' partial data; see `sleap_rtc.files.partial`.
        cache: Hashes of unchanged big files, which spare reading them.
        follow: Whether links to files are followed: in a folder of this user's own.

    Yields:
        A file's index in the package, and a descriptor of the candidate, open for reading until
        the next one is asked for.
    """
    wanted: dict[tuple[int, bytes], set[int]] = {}
    for file in lacking:
        entry = package.files[file]
        if entry.size:
            wanted.setdefault((entry.size, entry.block_hash(0)), set()).add(file)
    sizes = {size for size, _ in wanted}
    for path, known in _files(folders, partial, sizes, follow=follow):
        if not lacking:
            return
        try:
            fd = open_file(Path(os.path.realpath(path)) if follow else path)
        except (OSError, SleapRtcError):
            continue
        try:
            key = known or _key(fd, sizes, cache)
            for file in sorted(wanted.get(key, set()) & lacking) if key is not None else ():
                yield file, fd
        finally:
            os.close(fd)


def _key(fd: int, sizes: set[int], cache: HashCache | None) -> tuple[int, bytes] | None:
    """Size and first block of an open file; None when it can't be read or isn't of a size."""
    try:
        stamp = stamp_of(fd)
        if stamp.size not in sizes:
            return None
        found = None if cache is None else cache.get(stamp)
        if found is not None:
            return stamp.size, found.blocks[:32]
        return stamp.size, blake3(os.pread(fd, min(stamp.size, BLOCK), 0)).digest()
    except OSError:
        return None


def _files(
    folders: Sequence[Path], partial: Sequence[Path], sizes: set[int], *, follow: bool
) -> Iterator[tuple[Path, tuple[int, bytes] | None]]:
    """Paths of files that may be candidates, and what their listing says of them."""
    for folder in partial:
        for entry in _listed(folder):
            if entry.size in sizes:
                yield folder / FILES / entry.path, (entry.size, entry.block_hash(0))
    left = MAX_LOOKED_AT
    for top in folders:
        for path, size in _walk(top, follow=follow):
            left -= 1
            if left < 0:
                return
            if size in sizes:
                yield Path(path), None


def _listed(folder: Path) -> Iterable[FileEntry]:
    """What the partial data in a folder is going to be."""
    path = folder / LISTING
    try:
        if path.stat().st_size > MAX_LISTING:
            return ()
        return parse(path.read_bytes()).files
    except (OSError, SleapRtcError):
        return ()


def _walk(top: Path, *, follow: bool) -> Iterator[tuple[str, int]]:
    """Every regular file below a folder with its size, and every other name with size -1."""
    waiting = [os.fspath(top)]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                size = -1
                try:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=follow):
                        size = entry.stat(follow_symlinks=follow).st_size
                except OSError:
                    continue
                yield entry.path, size
