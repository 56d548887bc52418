"""How much of the server one device, or one address, may take. Time is handed in."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sleap_rtc.errors import NotPermitted

SIGN_IN_DEADLINE: Final = 10.0
"""Seconds a connection has to sign in."""
MAX_PENDING: Final = 1_000
"""Connections that have not signed in yet, in all."""
MAX_PENDING_PER_ADDRESS: Final = 100
"""The same for one address; a lab behind one NAT reconnects all at once after a restart."""
MESSAGE_RATE: Final = 50.0
"""Messages per second that one connection may go on sending."""
MESSAGE_BURST: Final = 300.0
"""Messages it may send at once: the candidates of several links."""
MESSAGE_UNIT: Final = 4_096
"""A message counts once more for each of these bytes that it has."""
MAX_OUTBOX: Final = 1024 * 1024
"""Bytes that wait for a device that doesn't read, before its connection is ended."""


def message_cost(size: int) -> float:
    """What a message of so many bytes counts."""
    return 1 + size / MESSAGE_UNIT


class Pending:
    """Connections that have not signed in yet.

    Args:
        total: Allowed in all.
        per_address: Allowed of one address.
    """

    def __init__(
        self, *, total: int = MAX_PENDING, per_address: int = MAX_PENDING_PER_ADDRESS
    ) -> None:
        self._total, self._per_address = total, per_address
        self._of: Counter[str] = Counter()

    def begin(self, address: str) -> None:
        """Count one more.

        Raises:
            NotPermitted: There are too many.
        """
        if self._of.total() >= self._total or self._of[address] >= self._per_address:
            raise NotPermitted(
                message="Too many connections to the server are waiting to sign in.",
                hint="Try again in some seconds.",
            )
        self._of[address] += 1

    def end(self, address: str) -> None:
        """Count one less: it signed in, or went."""
        self._of[address] -= 1
        if self._of[address] <= 0:
            del self._of[address]
