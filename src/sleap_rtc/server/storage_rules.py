"""What holds for everything that devices ask of the storage: rights, times, turns."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final, Protocol

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import Busy, NotPermitted
from sleap_rtc.storage.objects import StoredObject
from sleap_rtc.storage.service import TEMPORARY_SECONDS, Area

LIFETIME: Final = timedelta(seconds=TEMPORARY_SECONDS)
MUST_STAY: Final = timedelta(hours=12)
"""What is in the temporary area, and goes sooner than this, is uploaded again when asked."""


class Rights(Protocol):
    """Knows who is a member of which room."""

    def member_of(self, device: DeviceId, room: RoomId) -> Member:
        """A device as a member of a room, by the certificates that the server has.

        Raises:
            NotFound: The server doesn't know the room.
            NotTrusted: The device is no member.
        """


def check_writer(member: Member, area: Area) -> None:
    """See that a member may write to an area of its room.

    Raises:
        NotPermitted: It may not.
    """
    if member.role == "viewer":
        raise NotPermitted(message="A viewer of a room can't store anything in it.")
    if member.role == "worker" and area == "uploads":
        raise NotPermitted(message="A worker of a room only reads its uploads.")


def ends(area: Area, found: StoredObject, stored: datetime | None) -> datetime | None:
    """When an object goes; None if it stays.

    Args:
        area: Where it is.
        found: The object: a store that is no folder goes by its own clock and rule.
        stored: When it was last said to be there, where this server removes it.
    """
    began = stored or found.modified
    return began + LIFETIME if area == "uploads" and began is not None else None


class MustCompare(Exception):
    """A content has to be compared with its hash first, which takes the longer the larger it is.

    Args:
        size: Bytes that are to be read, as far as that is known.
    """

    def __init__(self, size: int = 0) -> None:
        super().__init__(size)
        self.size = size


class _Turn:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0


class Turns:
    """One at a time makes or removes the object of a key, which may take as long as it is large."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    @contextlib.contextmanager
    def of(self, key: str, *, wait: bool = True) -> Iterator[None]:
        """Have a key's turn within the block.

        Args:
            key: The key.
            wait: Until whoever has it is done.

        Raises:
            Busy: Somebody has it, and it wasn't to be waited for.
        """
        with self._guard:
            turn = self._turns.setdefault(key, _Turn())
            turn.wanted += 1
        try:
            if not turn.lock.acquire(blocking=wait):
                raise Busy(what=f"{key} on the server", by="")
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            with self._guard:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[key]
