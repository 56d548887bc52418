"""Ports for servers that tests start, which are told their ports and take them a moment later."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Final

_FIRST: Final = 10_000
_ANY: Final = 32_768
"""The first port that Linux gives to whoever asks for any; elsewhere they begin higher."""


def free_ports(count: int, address: str, *, second: int = 0) -> list[int]:
    """Ports that are free for TCP and UDP.

    All are below those that systems give to who connects, or to who asks for any: until the server
    has them, nobody else takes them by chance.

    Args:
        count: How many.
        address: Where they are to be free.
        second: How much higher another port is that has to be free with each; 0 for none.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = random.SystemRandom().randrange(_FIRST, _ANY - second)
            with contextlib.suppress(OSError):
                for each in {port, port + second}:
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        held.enter_context(socket.socket(type=kind)).bind((address, each))
                found.append(port)
    return found
