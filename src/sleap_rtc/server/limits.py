"""How much of the server one device, or one address, may take. Time is handed in."""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final

from sleap_rtc.errors import NotPermitted

SIGN_IN_DEADLINE: Final = 10.0
"""Seconds a connection has to sign in."""
MAX_PENDING: Final = 1_000
"""Connections that have not signed in yet, in all."""
MAX_PENDING_PER_ADDRESS: Final = 100
"""The same for one address; a lab behind one NAT reconnects all at once after a restart."""
MAX_CONNECTIONS: Final = 64
"""Signed-in connections of one device: each of a person's commands has one."""
MESSAGE_RATE: Final = 50.0
"""Messages per second that one device may go on sending, over all of its connections."""
MESSAGE_BURST: Final = 300.0
"""Messages it may send at once: the candidates of several links."""
MESSAGE_UNIT: Final = 4_096
"""A message counts once more for each of these bytes that it has."""
WRITE_COST: Final = 5.0
"""What a request counts besides that is told to a whole room, or written to the disk."""
DEVICES: Final = 20_000
"""Devices whose messages are counted; those that were silent for longest are forgotten."""
MAX_OUTBOX: Final = 1024 * 1024
"""Bytes that wait for a device that doesn't read, before its connection is ended."""
CODE_RATE: Final = 1 / 60
CODE_BURST: Final = 30.0
"""Wrong set-up codes from one network, per second and at once. No guessing of 78 bits succeeds
anyhow; this keeps the attempts out of the logs and off the disk."""
API_RATE: Final = 20.0
API_BURST: Final = 200.0
"""Requests over HTTP of one device, per second in the long run and at once."""
CONTENTS_RATE: Final = 2_000.0
CONTENTS_BURST: Final = 40_000.0
"""Contents that requests of one device name, per second and at once: each costs a tenth of a
millisecond, and the store's own work beside that. To store a small file it is named twice."""
REPORT_RATE: Final = 1 / 30
REPORT_BURST: Final = 50.0
"""Contents that one device reports as damaged, per second and at once: the server reads each."""
SIGN_IN_RATE: Final = 2.0
SIGN_IN_BURST: Final = 100.0
"""The same of one network, before it is known who asks."""
MAX_TRANSFERS: Final = 200
"""Parts and objects that are sent at a time, by everybody together."""
MAX_TRANSFERS_EACH: Final = 64
"""The same for one network; a device sends 10 at a time as a rule."""


def message_cost(size: int) -> float:
    """What a message of so many bytes counts."""
    return 1 + size / MESSAGE_UNIT


def network_of(address: str) -> str:
    """Whom an address stands for: a whole /64 in IPv6, of which everybody has one at least."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


class Pending:
    """Connections that have not signed in yet.

    Args:
        total: Allowed in all.
        per_address: Allowed of one address, or network.
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
        network = network_of(address)
        if self._of.total() >= self._total or self._of[network] >= self._per_address:
            raise NotPermitted(
                message="Too many connections to the server are waiting to sign in.",
                hint="Try again in some seconds.",
            )
        self._of[network] += 1

    def end(self, address: str) -> None:
        """Count one less: it signed in, or went."""
        network = network_of(address)
        self._of[network] -= 1
        if self._of[network] <= 0:
            del self._of[network]
