"""Locks on open files, among the processes of one host, and of several where the file system can.

A lock belongs to the descriptor: it is let go of when that is closed, and by the kernel when the
process ends, however it ends. Some network file systems have no locks; what is told then is for the
caller to decide: mostly that it goes on as if it had the lock, since whatever a lock guards here is
checked again when it is used.
"""

from __future__ import annotations

import errno
import fcntl
from typing import Final, Literal

Tried = Literal["had", "taken", "none"]

_NO_LOCKS: Final = frozenset(
    {errno.ENOLCK, errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
)


def try_lock(fd: int, *, shared: bool = False) -> Tried:
    """Lock an open file, unless that takes waiting.

    Args:
        fd: The file.
        shared: Whether others may have such a lock at the same time.

    Returns:
        ``had``; ``taken`` by another process, or through another descriptor of this one; ``none``
        where the file system has no locks.
    """
    try:
        return "had" if _flock(fd, fcntl.LOCK_NB, shared=shared) else "none"
    except BlockingIOError:
        return "taken"


def wait_for_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file, waiting for whoever has a lock on it.

    Args:
        fd: The file.
        shared: Whether others may have such a lock at the same time.

    Returns:
        False where the file system has no locks.
    """
    return _flock(fd, 0, shared=shared)


def _flock(fd: int, how: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(fd, how | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True
