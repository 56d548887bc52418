"""How much one device may ask at a time, over however many connections.

A connection has its own bound, but a device may have many. A few of its requests are worked
on, the next wait, and what comes beyond that is refused: nobody's questions keep the others' from
being answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import Conflict
from sleap_rtc.protocol.link import MAX_REQUESTS

AT_WORK: Final = 16
"""Requests of one device that are worked on at a time."""


class _Device:
    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(AT_WORK)
        self.asked = 0


class Turns:
    """For one event loop."""

    def __init__(self) -> None:
        self._devices: dict[DeviceId, _Device] = {}

    @contextlib.asynccontextmanager
    async def of(self, device: DeviceId) -> AsyncIterator[None]:
        """A device's turn.

        Raises:
            Conflict: It asks for more at a time than one connection may.
        """
        one = self._devices.setdefault(device, _Device())
        if one.asked >= MAX_REQUESTS:
            raise Conflict(
                message=f"{MAX_REQUESTS} requests of this device wait for an answer already.",
                hint="Ask again when some of them are answered.",
            )
        one.asked += 1
        try:
            async with one.turn:
                yield
        finally:
            one.asked -= 1
            if not one.asked:
                del self._devices[device]
