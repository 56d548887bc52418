"""Room on the disk: asked for, reserved before the first byte, and shared between files."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import OutOfSpace

_WRITE: Final = 2
"""``SYNC_FILE_RANGE_WRITE``."""
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


def free_space(path: Path) -> int:
    """Bytes that this user may still write on the file system of ``path``."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def check_space(path: Path, need: int) -> None:
    """Check that there is room.

    Args:
        path: Something on the file system that is written to.
        need: Bytes.

    Raises:
        OutOfSpace: There is less.
    """
    free = free_space(path)
    if free < need:
        raise OutOfSpace(path=str(path), free=format_bytes(free), need=format_bytes(need))


def reserve(fd: int, size: int) -> None:
    """Make a file ``size`` bytes long, with its room on the disk taken where that is possible.

    Elsewhere the file is sparse, and the disk may still run full later. The C library's
    ``posix_fallocate`` isn't used: where the file system can't, it writes to every block.

    Raises:
        OSError: ``ENOSPC`` or ``EDQUOT`` when there is no room.
    """
    if not (size and reserve_range(fd, 0, size)):
        os.ftruncate(fd, size)


def reserve_range(fd: int, offset: int, size: int) -> bool:
    """Take the room of a part of a file, which becomes long enough for it.

    Returns:
        False where that isn't possible: then nothing happened.

    Raises:
        OSError: ``ENOSPC`` or ``EDQUOT`` when there is no room.
    """
    call = _libc("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call is None:
        return False
    failed = call(fd, 0, offset, size)
    if failed and failed not in _NOT_SUPPORTED:
        raise OSError(failed, os.strerror(failed))
    return not failed


def copy_range(source: int, target: int, offset: int, size: int) -> bool:
    """Copy bytes between files within the kernel, to the same place.

    File systems that can (btrfs, XFS, NFS 4.2) don't copy: both files then share what is on the
    disk, until one of them is changed.

    Returns:
        False where there is no such call, or not between these files; some bytes may be copied.

    Raises:
        OSError: ``ENOSPC`` or ``EDQUOT`` when there is no room.
    """
    if sys.platform != "linux":
        return False
    end = offset + size
    while offset < end:
        try:
            copied = os.copy_file_range(source, target, end - offset, offset, offset)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        if not copied:  # the source is shorter than it was
            return False
        offset += copied
    return True


def begin_writing(fd: int, offset: int, size: int) -> None:
    """Have the system begin to write a part of a file to the disk, where it can be told so.

    Nobody waits for it, nothing is promised, and errors are for whoever syncs the file. What is in
    memory stays there.
    """
    arguments = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    call = _libc("sync_file_range", *arguments)
    if call is not None:
        call(fd, offset, size, _WRITE)


def sync_file_system(fd: int) -> bool:
    """Wait until all of the file system is on the disk; one call instead of one per small file.

    Args:
        fd: Any open file or directory on it.

    Returns:
        False where there is no such call, or it would tell of no errors: sync each file.

    Raises:
        OSError: Something could not be written.
    """
    call = _libc("syncfs", ctypes.c_int)
    if call is None or not syncs_with_errors(os.uname().release):
        return False
    failed = call(fd)
    if failed in _NOT_SUPPORTED:
        return False
    if failed:
        raise OSError(failed, os.strerror(failed))
    return True


def syncs_with_errors(release: str) -> bool:
    """Whether ``syncfs`` says when something could not be written: Linux 5.8 and later do.

    Args:
        release: Of the kernel, as ``uname -r`` prints it: ``5.15.0-91-generic``.
    """
    found = re.match(r"(\d{1,4})\.(\d{1,4})", release, re.ASCII)
    return found is not None and (int(found[1]), int(found[2])) >= (5, 8)


@functools.cache
def _libc(name: str, *arguments: type) -> Callable[..., int] | None:
    """A function of 64-bit Linux' C library, giving 0 or an errno; None where there is none."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:  # offsets have 64 bits only there
        return None
    try:
        found = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    found.argtypes, found.restype = arguments, ctypes.c_int

    def call(*values: int) -> int:
        while True:
            if found(*values) == 0:
                return 0
            if ctypes.get_errno() != errno.EINTR:
                return ctypes.get_errno()

    return call
