"""Copying a file and hashing it in the same pass.

::

    thread 1   kernel: source ──► target        a clone where the file system has them,
    thread 2   BLAKE3 ◄── source                else copy_file_range, else read and write

Both read the same pages, one of them from the cache. The disk is told to begin
with each piece as soon as it is copied: left to itself it would begin in the end,
and everybody would wait for it. A source that changes
meanwhile is :class:`~sleap_rtc.errors.SourceChanged`, and nothing is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import msgspec

from sleap_rtc.errors import SourceChanged
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.durable import disk_errors, sync_file
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.files.hashing import FileHashes, FileStamp, Progress, hash_open, stamp_of

How = Literal["clone", "copy"]

_CHUNK: Final = 8 * 1024 * 1024
_FICLONE: Final = 0x40049409
_NO_CLONE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS}
)
_NO_RANGE: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF}
)


class Copied(msgspec.Struct, frozen=True):
    """A file that was copied.

    Attributes:
        stamp: The source's, the same before and after.
        hashes: Of its content.
        how: Whether the target shares the source's blocks.
    """

    stamp: FileStamp
    hashes: FileHashes
    how: How


def clone(source: int, target: int) -> bool:
    """Let an empty file share another's blocks on the disk.

    Args:
        source: Descriptor of the file.
        target: Descriptor of the empty one, open for writing.

    Returns:
        False where the file system can't; nothing is changed then.

    Raises:
        OSError: It can, and failed.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def room_of_copies(files: Iterable[Path], folder: Path) -> int:
    """How much room copies of files take in a folder: those that share the disk's blocks take none.

    Whether they will is tried with one file of each file system; nothing is left in the folder.

    Args:
        files: Regular files, perhaps by links.
        folder: Where the copies will be; it, or a parent of it, exists.

    Returns:
        Bytes.

    Raises:
        UnsafePath: Something is no regular file.
        OSError: A file can't be read.
    """
    need = 0
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    shared: dict[int, bool] = {}
    for path in files:
        found = path.stat()
        if found.st_size and found.st_dev not in shared:
            fd = open_file(Path(os.path.realpath(path)))
            try:
                shared[found.st_dev] = _shares(fd, there)
            finally:
                os.close(fd)
        need += 0 if shared.get(found.st_dev) else found.st_size
    return need


def _shares(source: int, folder: Path) -> bool:
    """Whether a copy of a file in a folder shares the disk's blocks with it."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        probe = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        return clone(source, probe)
    except OSError:
        return False
    finally:
        os.close(probe)


def copy_hashed(
    source: Path,
    target: Path,
    *,
    cache: HashCache | None = None,
    progress: Progress | None = None,
) -> Copied:
    """Copy a file to a new one, synced, and hash it.

    Args:
        source: A regular file; no link.
        target: Must not exist; its folder does.
        cache: Where hashes of unchanged big files are looked up and remembered.
        progress: Told of the bytes that were just hashed; what it raises ends the copying.

    Raises:
        SourceChanged: The source changed meanwhile.
        FileExistsError: The target is there.
        OutOfSpace: The disk is full; nothing is left of the target.
        UnsafePath: The source is no regular file.
        OSError: The source can't be read.
    """
    fd = open_file(source)
    try:
        stamp = stamp_of(fd)
        with disk_errors(target, need=stamp.size):
            made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            copied = _copy_open(
                fd, made, stamp=stamp, name=source, path=target, cache=cache, progress=progress
            )
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink()
            raise
        finally:
            os.close(made)
        return copied
    finally:
        os.close(fd)


def _copy_open(
    source: int,
    target: int,
    *,
    stamp: FileStamp,
    name: Path,
    path: Path,
    cache: HashCache | None,
    progress: Progress | None,
) -> Copied:
    with disk_errors(path, need=stamp.size):
        how: How = "clone" if clone(source, target) else "copy"
    work = _Copying(source, target, stamp.size, written=how == "clone")
    work.start()
    try:
        known = None if cache is None else cache.get(stamp)
        if known is not None:
            hashes = known
            if progress is not None:
                progress(stamp.size)
        else:
            _, hashes = hash_open(source, name=str(name), progress=progress)
    except BaseException:
        work.stop()
        raise
    with disk_errors(path, need=stamp.size):
        work.finish()
    if stamp_of(source) != stamp:
        raise SourceChanged(path=str(name))
    if cache is not None and known is None:
        cache.put(stamp, hashes)
    return Copied(stamp=stamp, hashes=hashes, how=how)


class _Copying:
    """A thread that copies and syncs."""

    def __init__(self, source: int, target: int, size: int, *, written: bool) -> None:
        self._source, self._target, self._size = source, target, size
        self._written = written
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="copy", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End it as soon as may be; the target is of no use then."""
        self._stopped.set()
        self._thread.join()

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            OSError: It failed.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            if not self._written:
                self._copy()
            if not self._stopped.is_set():
                sync_file(self._target)
        except BaseException as error:  # noqa: BLE001 - raised again by finish
            self._error = error

    def _copy(self) -> None:
        move = _in_kernel if hasattr(os, "copy_file_range") else _by_hand
        done = 0
        while done < self._size and not self._stopped.is_set():
            length = min(_CHUNK, self._size - done)
            try:
                moved = move(self._source, self._target, done, length)
            except OSError as error:
                if move is _by_hand or error.errno not in _NO_RANGE:
                    raise
                move = _by_hand
                continue
            if not moved:
                if move is _in_kernel and not done:
                    move = _by_hand  # some file systems say 0 instead of no
                    continue
                return  # it became shorter, which its stamp tells
            _begin_writing(self._target, done, moved)
            done += moved


def _begin_writing(target: int, offset: int, length: int) -> None:
    """Let the kernel begin to write what was copied; nothing waits for it, and nothing is promised.

    That a range isn't needed any more is how Linux is told so: it writes what isn't written.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(target, offset, length, os.POSIX_FADV_DONTNEED)


def _in_kernel(source: int, target: int, offset: int, length: int) -> int:
    return os.copy_file_range(source, target, length, offset, offset)


def _by_hand(source: int, target: int, offset: int, length: int) -> int:
    data = memoryview(os.pread(source, min(length, 1 << 20), offset))
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], offset + written)
    return written
