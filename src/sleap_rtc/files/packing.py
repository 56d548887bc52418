"""Making a package of files on this machine, and reading its blocks for whoever may have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry, Package, check_path, package
from sleap_rtc.errors import NotFound, PathNotPermitted, SourceChanged
from sleap_rtc.files.beneath import Root, open_file
from sleap_rtc.files.handles import Handles
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import FileStamp, hash_open, stamp_of

Progress = Callable[[int, int], None]
"""Called with the bytes hashed and the bytes of all files; what it raises ends the packing."""


class Source(msgspec.Struct, frozen=True):
    """Where the content of a package's file is.

    Attributes:
        path: On this machine; relative to the root if there is one.
        stamp: What it was when it was hashed.
        beneath: Whether it is opened below the root, following no link.
    """

    path: str
    stamp: FileStamp
    beneath: bool


class Packed(msgspec.Struct, frozen=True):
    """A package with the places of its content.

    Attributes:
        package: The package.
        sources: One for each of its files, in its order.
        file_hashes: Path in the package → BLAKE3 of the whole file, as ``b3sum`` prints it.
        root: What files inside it are opened beneath.
    """

    package: Package
    sources: tuple[Source, ...]
    file_hashes: dict[str, str]
    root: Path | None = None


def pack(
    files: Mapping[str, Path],
    *,
    root: Path | None = None,
    cache: HashCache | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Hash files into a package.

    Args:
        files: Path in the package → the file. Inside ``root`` no part of its path below the root
            may be a link. Elsewhere it is the caller who chose the file, so links are followed,
            now and not again.
        root: The library's folder, for example, that strangers' links must not lead out of.
        cache: Where hashes of unchanged big files are looked up and remembered.
        progress: Told of the bytes hashed so far; a file found in the cache counts at once.

    Returns:
        The package and its sources, for :class:`BlockReader`.

    Raises:
        UnsafePath: A path that is refused, a link inside the root, or not a regular file.
        SourceChanged: A file changed while it was hashed.
        NotFound: There is no such file.
        PathNotPermitted: It may not be read.
    """
    base = None if root is None else Root(root)
    try:
        places = {check_path(name): _place(path, root) for name, path in files.items()}
        total = sum(_size(base, path, beneath) for path, beneath in places.values())
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            if progress is not None:
                progress(done, total)

        entries: list[FileEntry] = []
        sources: dict[str, Source] = {}
        hashes: dict[str, str] = {}
        for name, (path, beneath) in places.items():
            fd = _open(base, path, beneath=beneath)
            try:
                stamp = stamp_of(fd)
                found = None if cache is None else cache.get(stamp)
                if found is None:
                    stamp, found = hash_open(fd, name=path, progress=count)
                    if cache is not None:
                        cache.put(stamp, found)
                else:
                    count(stamp.size)
            finally:
                os.close(fd)
            entries.append(FileEntry(path=name, size=stamp.size, hashes=found.blocks))
            sources[name] = Source(path=path, stamp=stamp, beneath=beneath)
            hashes[name] = found.blake3
    finally:
        if base is not None:
            base.close()
    made = package(entries)
    return Packed(
        package=made,
        sources=tuple(sources[entry.path] for entry in made.files),
        file_hashes=hashes,
        root=root,
    )


class BlockReader:
    """Reads blocks of a packed package, each checked before it leaves. For several threads.

    Args:
        packed: The package and its sources.
    """

    def __init__(self, packed: Packed) -> None:
        self.packed = packed
        self._root = None if packed.root is None else Root(packed.root)
        self._closed = False
        self._handles = Handles(self._open)

    def read(self, file: int, block: int) -> bytes:
        """The content of one block.

        Args:
            file: Index of the file in the package.
            block: Index of the block in the file.

        Raises:
            NotFound: The package has no such block, the file is gone, or the reader is closed.
            SourceChanged: The file isn't any more what was packed.
            UnsafePath: A link took the file's place.
            PathNotPermitted: It may not be read any more.
        """
        files = self.packed.package.files
        if not (0 <= file < len(files) and 0 <= block < files[file].block_count):
            raise NotFound(message=f"The package has no block {block} of a file {file}.")
        entry = files[file]
        if entry.block_count > 1:
            with self._handles.use(file) as fd:
                return self._read(fd, file, block)
        fd = self._open(file)  # there is nothing to come back for
        try:
            return self._read(fd, file, block)
        finally:
            os.close(fd)

    def _read(self, fd: int, file: int, block: int) -> bytes:
        entry, source = self.packed.package.files[file], self.packed.sources[file]
        data = os.pread(fd, entry.block_size(block), block * BLOCK)
        # Looked at after it was read: a change before that shows as well.
        unchanged = stamp_of(fd).same_content(source.stamp)
        if not unchanged or blake3(data).digest() != entry.block_hash(block):
            raise SourceChanged(path=source.path)
        return data

    def close(self) -> None:
        """Close the files; a read that is under way in another thread ends well."""
        self._closed = True
        self._handles.close()
        if self._root is not None:
            self._root.close()

    def _open(self, file: int) -> int:
        source = self.packed.sources[file]
        try:
            if not self._closed:
                return _open(self._root, source.path, beneath=source.beneath)
        except OSError:
            if not self._closed:  # else its root's descriptor is gone
                raise
        raise NotFound(message=f"The file {source.path} is not given away any more.")


def _place(path: Path, root: Path | None) -> tuple[str, bool]:
    """The path to open, and whether it is below the root."""
    if root is not None and path.is_relative_to(root):
        return check_path(path.relative_to(root).as_posix()), True
    return os.path.realpath(path), False


def _size(root: Root | None, path: str, beneath: bool) -> int:
    """Bytes of a file, for the progress alone; what is wrong with it is said when it is opened."""
    full = root.path / path if root is not None and beneath else Path(path)
    try:
        return full.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _open(root: Root | None, path: str, *, beneath: bool) -> int:
    try:
        return root.open(path) if root is not None and beneath else open_file(Path(path))
    except FileNotFoundError:
        raise NotFound(message=f"The file {path} does not exist.") from None
    except PermissionError:
        raise PathNotPermitted(path=path, why="this user may not read it") from None
