"""Room for datagrams that arrive faster than they are taken.

A WebRTC library in a process takes every packet in one thread, which now and then waits for the
interpreter or the scheduler, for some milliseconds. What comes meanwhile waits in the socket: by
default 90 packets, at 50 MB/s those of 2 ms. The rest is lost, and the sender takes that for a full
line: on a long one it needs minutes to find its speed again. The library has no setting for it, so
its sockets are looked for among the files of the process.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import suppress
from typing import Final

ROOM: Final = 6 * 1024 * 1024
"""Bytes that may wait in a socket: what SCTP lets a peer send before it hears that anything has
arrived, 5 MiB, and what the system counts for it besides. So nothing is ever lost here, however
long the program is busy. Systems give no more than they are set to; see ``docs/networks.md``."""

_FORCE: Final = 33
"""Linux's ``SO_RCVBUFFORCE``, for which administrators needn't ask the system's limit."""
_FILES: Final = ("/proc/self/fd", "/dev/fd")
"""Where Linux and macOS list the files of a process; elsewhere sockets stay as they are."""


def make_room(wanted: int = ROOM) -> int:
    """Give each UDP socket of this process that has less so much room, or what the system allows.

    Returns:
        How many were given more.
    """
    folder = next((each for each in _FILES if os.path.isdir(each)), None)  # noqa: PTH112 - often called
    changed = 0
    for name in os.listdir(folder) if folder else ():  # noqa: PTH208
        # Another thread may close any of them meanwhile.
        with suppress(OSError):
            changed += _widen(int(name), wanted)
    return changed


def _widen(file: int, wanted: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(file).st_mode):
        return False
    with socket.socket(fileno=os.dup(file)) as found:
        if found.type != socket.SOCK_DGRAM or found.family == socket.AF_UNIX:
            return False
        before = _room(found)
        if before >= wanted:
            return False
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        if sys.platform == "linux" and _room(found) < wanted:
            with suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, _FORCE, wanted)
        return _room(found) > before


def _room(of: socket.socket) -> int:
    told = of.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    # Linux counts its own bookkeeping, and says twice what was asked for.
    return told // 2 if sys.platform == "linux" else told
