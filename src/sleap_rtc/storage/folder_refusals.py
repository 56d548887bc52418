"""What devices hear when the disk below a folder that is a store refuses something.

They are told which object it is about, why, and what helps, and never where that is: paths, and
what the system said, are for whoever runs the server, and go to the log.

==============================  =================================================
a full disk, or quota           `OutOfSpace`
no right to write, read-only    `StorageRefused`
bytes that can't be read        `Damaged`: as if they were others
everything else                 `StorageUnreachable`: another time it may do better
==============================  =================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from loguru import logger

from sleap_rtc.errors import (
    Damaged,
    OutOfSpace,
    PathNotPermitted,
    SleapRtcError,
    StorageRefused,
    StorageUnreachable,
)

STORE: Final = "of the server"
"""How errors call it."""

_ITS_LOG: Final = "Whoever runs the server finds in its log what is to be done."
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED: Final = {
    errno.EROFS: "its disk is read-only",
    errno.EACCES: "it has no right to its own files",
    errno.EPERM: "it has no right to its own files",
}


@contextlib.contextmanager
def refusals(what: str, *, reads: str = "") -> Iterator[None]:
    """Have what a disk refuses within the block told without its paths.

    Args:
        what: Is tried: ``begin an upload to KEY``.
        reads: Key of the object whose content is read, if one is.

    Raises:
        OutOfSpace: It is full.
        StorageRefused: The server's user may not do that there.
        StorageUnreachable: It fails otherwise.
        Damaged: It can't read the object any more.
        FileNotFoundError: As it comes: the caller knows what that means.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OutOfSpace, PathNotPermitted, OSError) as error:
        logger.error("the disk refuses to {}: {}", what, error)
        raise _told(error, what, reads) from error


def _told(error: SleapRtcError | OSError, what: str, reads: str) -> SleapRtcError:
    """The same for devices."""
    if isinstance(error, OutOfSpace):
        return _full(**error.details)
    # Where it was said in words before, the system's own error is what that comes from.
    cause = error if isinstance(error, OSError) else error.__cause__
    number = (cause.errno if isinstance(cause, OSError) else None) or errno.EACCES
    if number in _FULL:
        return _full(free="no room", need="more bytes")
    if number in _DENIED:
        return StorageRefused(store=STORE, what=what, why=_DENIED[number], hint=_ITS_LOG)
    if number == errno.EIO and reads:
        hint = "Once that is reported, whoever stores it the next time mends it."
        return Damaged(what=reads, why="the server's disk can't read it any more", hint=hint)
    why = f"its disk fails to {what} ({os.strerror(number).lower()})"
    return StorageUnreachable(store=STORE, why=why, hint=f"Try again later. {_ITS_LOG}")


def _full(*, free: str, need: str, **_: str) -> OutOfSpace:
    hint = "Whoever runs the server can make room; the same command then goes on."
    return OutOfSpace(path="The server's storage", free=free, need=need, hint=hint)
