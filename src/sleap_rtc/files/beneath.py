"""Opening files below a directory without ever following a link out of it.

Every part of the path is opened from its parent's descriptor and refused if it is a link, so a
link that appears while the path is walked doesn't help either.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from sleap_rtc.errors import UnsafePath
from sleap_rtc.files.space import sync_file_system

_OPEN_DIRECTORIES: Final = 64
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO would block in open, a terminal become ours: neither is a regular file anyway.
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Root:
    """A directory below which no link is followed. May be used from several threads.

    Args:
        path: The directory; links in its own path are followed.

    Raises:
        FileNotFoundError: There is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._directories: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def open(self, relative: str, flags: int = os.O_RDONLY, *, mode: int = 0o666) -> int:
        """Open a regular file; with ``O_CREAT`` in the flags, its directories are made too.

        Args:
            relative: A path that passed :func:`sleap_rtc.domain.packages.check_path`.
            flags: As for ``os.open``.
            mode: Permission bits of a new file, before the umask.

        Returns:
            A descriptor that the caller closes.

        Raises:
            UnsafePath: A link on the way, or not a regular file.
            OSError: As ``os.open``.
        """
        *parents, name = relative.split("/")
        try:
            with self._lock:
                parent = self._directory(tuple(parents), create=bool(flags & os.O_CREAT))
                fd = os.open(name, flags | _SAFE, mode, dir_fd=parent)
        except OSError as error:
            raise _refused(relative, error) from None
        return _regular(fd, relative)

    def look(self, relative: str) -> os.stat_result | None:
        """What a regular file is, without opening it; None where there is none.

        Args:
            relative: As for :meth:`open`.

        Raises:
            UnsafePath: A link on the way, or not a regular file.
            OSError: As ``os.stat``.
        """
        *parents, name = relative.split("/")
        try:
            with self._lock:
                parent = self._directory(tuple(parents), create=False)
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(relative, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise UnsafePath(path=relative, why="it is not a regular file")
        return found

    def sync_file_system(self) -> bool:
        """Wait until all of the file system is on the disk; False where that can't be asked."""
        return sync_file_system(self._fd)

    def close(self) -> None:
        """Close all descriptors of directories."""
        with self._lock:
            while self._directories:
                os.close(self._directories.popitem()[1])
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _directory(self, parts: tuple[str, ...], *, create: bool) -> int:
        if not parts:
            return self._fd
        known = self._directories.get(parts)
        if known is not None:
            self._directories.move_to_end(parts)
            return known
        parent = self._directory(parts[:-1], create=create)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[-1], dir_fd=parent)
        fd = os.open(parts[-1], _DIRECTORY, dir_fd=parent)
        self._directories[parts] = fd
        if len(self._directories) > _OPEN_DIRECTORIES:
            os.close(self._directories.popitem(last=False)[1])
        return fd


def open_file(path: Path) -> int:
    """Open a regular file for reading, refusing a link in the last part of its path.

    Returns:
        A descriptor that the caller closes.

    Raises:
        UnsafePath: A link, or not a regular file.
        OSError: As ``os.open``.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _SAFE)
    except OSError as error:
        raise _refused(str(path), error) from None
    return _regular(fd, str(path))


def _refused(path: str, error: OSError) -> UnsafePath | OSError:
    """What it means that a file can't be opened."""
    # ENOTDIR: O_DIRECTORY comes before O_NOFOLLOW in some kernels' eyes. EMLINK: the BSDs.
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
        return UnsafePath(path=path, why="it leads through a link")
    if error.errno in (errno.EISDIR, errno.ENXIO):
        return UnsafePath(path=path, why="it is not a regular file")
    return error


def _regular(fd: int, path: str) -> int:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafePath(path=path, why="it is not a regular file")
    os.set_blocking(fd, True)
    return fd
