"""The seam between the link and a network library: an ordered, reliable message pipe.

A connection is made by a transport (``webrtc.py``; others later) and carries
text and binary messages of at most 64 KiB. It isn't authenticated: that is what
the link does with the two fingerprints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

import msgspec

HIGH_WATER: Final = 8 * 1024 * 1024
"""Bytes queued in the library above which a sender of content waits."""
CONTROL_HIGH_WATER: Final = 256 * 1024
"""The same on a control connection, where what is queued delays the next answer."""
MAX_UNREAD: Final = 32 * 1024 * 1024
"""Bytes that may have arrived and not been read; a peer that sends more is cut off."""


class Arrived(msgspec.Struct, frozen=True):
    """A message."""

    data: bytes
    binary: bool


class Packets(msgspec.Struct, frozen=True):
    """What a connection has sent.

    Attributes:
        sent: Packets, those that were sent again included.
        again: Packets that carried something a second time.
    """

    sent: int
    again: int

    def __add__(self, other: Packets) -> Packets:
        """Those of two connections."""
        return Packets(sent=self.sent + other.sent, again=self.again + other.again)


Tap = Callable[[bytes], bool]
"""Is offered a binary message, in a thread of the library's, and says whether it has taken it."""


@runtime_checkable
class Tapped(Protocol):
    """A connection whose binary messages needn't go through the event loop one by one."""

    def tap(self, take: Tap) -> None:
        """Offer every binary message to ``take`` first; what it doesn't take is received."""
        ...


class Connection(Protocol):
    """One open connection. Used from one event loop."""

    @property
    def local_fingerprint(self) -> bytes:
        """SHA-256 of our certificate, 32 bytes, from the description that we applied."""
        ...

    @property
    def remote_fingerprint(self) -> bytes:
        """SHA-256 of the peer's certificate, 32 bytes, from the description that we applied."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    @property
    def moved(self) -> int:
        """Bytes that have left or arrived, as far as this side knows; for measuring speed."""
        ...

    async def packets(self) -> Packets | None:
        """What it has sent so far, once closed as far as was seen; None if its library tells none.

        Only connections for content are asked.
        """
        ...

    async def receive(self) -> Arrived:
        """The next message.

        Raises:
            LinkLost: The connection is closed, by either side or by the network.
        """
        ...

    def send_text(self, data: bytes) -> None:
        """Queue a text message; control messages are small and don't wait.

        Raises:
            LinkLost: The connection is closed.
        """
        ...

    async def room(self) -> None:
        """Wait until little enough is queued; for messages that come in long rows.

        Returns at once when the connection is closed.
        """
        ...

    async def send_binary(self, data: bytes) -> None:
        """Queue a binary message, once there is :meth:`room`; at once where there is some.

        Raises:
            LinkLost: The connection is closed.
        """
        ...

    async def emptied(self) -> None:
        """Wait until everything that was queued has left.

        Returns at once when the connection is closed.
        """
        ...

    async def close(self) -> None:
        """Close it. Safe at any time and more than once."""
        ...

    def when_unsettled(self, callback: Callable[[bool], None]) -> None:
        """Be told when the network path breaks (True) and when it works again (False)."""
        ...
