"""What was fetched from storage, kept on this machine up to a size; the least used goes first.

::

    <folder>/
      files/<2 hex>/<BLAKE3>     whole files, named by their content; never changed
      partial/<BLAKE3>/          what is being fetched, claimed by one process
      trim                       held by who makes room

Several processes may share it. Whoever uses a file holds a shared lock on it, so
that nobody takes it away; who makes room skips what is locked. When a file was
last used is its time of access, which is set here, as many disks don't keep it.
Anything in it may be deleted at any time, by hand too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sleap_rtc.errors import Busy, DeadlineExceeded
from sleap_rtc.files.durable import disk_errors, make_directory
from sleap_rtc.files.locking import try_lock, wait_for_lock

PARTIAL_SECONDS: Final = 7 * 86_400.0
"""Seconds that what was left unfinished stays."""

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_LOOK_AGAIN: Final = 0.1

Fetch = Callable[[Path, Path], None]
"""Given where the file goes, and a folder for what arrives before it is whole."""


class FileCache:
    """A folder of fetched files. For many threads and processes.

    Args:
        folder: Made when it isn't there.
        limit: Bytes that the files may have together; what is in use stays beyond that.

    Raises:
        OutOfSpace: The folder can't be made.
        PathNotPermitted: This user may not write there.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._files = folder / "files"
        self._partial = folder / "partial"
        self._trim = folder / "trim"
        self._limit = limit
        make_directory(self._files)
        make_directory(self._partial)

    @contextlib.contextmanager
    def use(
        self, blake3: str, size: int, fetch: Fetch, *, patience: float = 86_400.0
    ) -> Iterator[Path]:
        """A file, fetched if it isn't here; nobody takes it away within the block.

        Args:
            blake3: Of its content, 64 hex digits.
            size: Bytes.
            fetch: Makes it, whole and checked; another process may do it meanwhile instead.
            patience: Seconds to wait for a process that is fetching the same.

        Raises:
            DeadlineExceeded: Another process takes longer than that.
            SleapRtcError: As ``fetch``.
        """
        path = self._path(blake3)
        end = time.monotonic() + patience
        while True:
            fd = _held(path, size)
            if fd is not None:
                break
            try:
                self._fetch(path, size, fetch)
            except Busy:
                if time.monotonic() > end:
                    raise DeadlineExceeded(
                        what=f"Waiting for {path.name}", seconds=patience
                    ) from None
                time.sleep(_LOOK_AGAIN)
        try:
            os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
            yield path
        finally:
            os.close(fd)

    def has(self, blake3: str, size: int) -> bool:
        """Whether a file is here; it may be gone in the next instant."""
        with contextlib.suppress(OSError):
            return self._path(blake3).stat().st_size == size
        return False

    def size(self) -> int:
        """Bytes of all files that are here."""
        return sum(size for _, size, _ in self._listed())

    def trim(self, *, room: int = 0) -> int:
        """Remove the least used files until the others and ``room`` bytes fit.

        Args:
            room: Bytes that are about to come.

        Returns:
            Bytes that were removed; fewer than needed when much is in use.
        """
        with _lock(self._trim):
            listed = sorted(self._listed())
            over = sum(size for _, size, _ in listed) + room - self._limit
            removed = 0
            for _, size, path in listed:
                if removed >= over:
                    break
                if _remove(path):
                    removed += size
            return removed

    def clean(self, *, seconds: float = PARTIAL_SECONDS) -> None:
        """Remove what was left unfinished, and make room if the limit became lower.

        Args:
            seconds: That nothing was written to it.
        """
        for folder in self._partial.iterdir():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if time.time() - newest >= seconds:
                    with contextlib.suppress(Busy), _unclaimed(folder / "lock"):
                        shutil.rmtree(folder, ignore_errors=True)
        self.trim()

    def _fetch(self, path: Path, size: int, fetch: Fetch) -> None:
        self.trim(room=size)
        make_directory(path.parent)
        with disk_errors(path, need=size):
            fetch(path, self._partial / path.name)

    def _path(self, blake3: str) -> Path:
        if _NAME.fullmatch(blake3) is None:
            raise ValueError(f"{blake3[:80]!r} is no BLAKE3")
        return self._files / blake3[:2] / blake3

    def _listed(self) -> Iterator[tuple[int, int, Path]]:
        """When each file was last used, its size, and where it is."""
        for folder in self._files.iterdir():
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat(follow_symlinks=False)
                    if _NAME.fullmatch(path.name):
                        yield found.st_atime_ns, found.st_size, path


def _held(path: Path, size: int) -> int | None:
    """A descriptor that keeps a file from being removed; None when the file isn't here."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        wait_for_lock(fd, shared=True)  # without one, who has the file open reads on
        found = os.fstat(fd)
        if found.st_nlink and found.st_size == size:
            return fd
        if found.st_nlink:  # damaged: it can't be what its name says
            path.unlink(missing_ok=True)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _remove(path: Path) -> bool:
    """Remove a file unless somebody uses it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if try_lock(fd) == "taken":
            return False
        path.unlink()
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return True


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One at a time."""
    with disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        wait_for_lock(fd)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _unclaimed(path: Path) -> Iterator[None]:
    """While nobody holds a claim's lock."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if try_lock(fd) == "taken":
            raise Busy(what=str(path), by="")
        yield
    finally:
        os.close(fd)
