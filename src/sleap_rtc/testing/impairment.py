"""A bad network between two WebRTC peers: loss, delay, duplication, reordering, cuts.

Every host candidate that a peer announces is replaced by a UDP port of a proxy,
which passes datagrams on to the real one and treats them as told. Works inside
one network namespace, without privileges and without a kernel module::

    peer A ──► [proxy for B] ──► peer B         each pair of sockets belongs to one
    peer A ◄── [proxy for A] ◄── peer B         announced candidate
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import msgspec

from sleap_rtc.protocol.peering import Candidate, Peering

_HOST_PARTS = 8


class Weather(msgspec.Struct):
    """What happens to each datagram; may be changed at any time.

    Attributes:
        loss: Probability that it is lost, 0 to 1.
        delay_s: Seconds that it is held.
        jitter_s: Up to so many seconds more, evenly spread: this reorders.
        duplicate: Probability that it arrives twice.
        cut: Nothing passes.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    duplicate: float = 0.0
    cut: bool = False


class _Side(asyncio.DatagramProtocol):
    """One socket of a pair: what it receives leaves through the other."""

    def __init__(self, network: ImpairedNetwork) -> None:
        self._network = network
        self.transport: asyncio.DatagramTransport | None = None
        self.other: _Side | None = None
        self.peer: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        # Not an isinstance check: the event loop's own class isn't a DatagramTransport in 3.11.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Remember who speaks here, so that answers find the way back, and pass it on."""
        self.peer = (str(addr[0]), addr[1])
        other = self.other
        if other is not None:
            self._network.pass_on(data, other)

    def send(self, data: bytes) -> None:
        """Send to whoever is behind this socket."""
        if self.transport is not None and self.peer is not None and not self.transport.is_closing():
            self.transport.sendto(data, self.peer)


class ImpairedNetwork:
    """The proxies of one test.

    Args:
        address: The address of the namespace.
        weather: What happens to datagrams, both ways.
        seed: Makes losses repeatable.
    """

    def __init__(self, address: str, weather: Weather, *, seed: int = 1) -> None:
        self.weather = weather
        self.passed = 0
        self._address = address
        self._random = random.Random(seed)  # noqa: S311
        self._sides: list[_Side] = []
        self._made: dict[str, str] = {}
        self._wanted: list[tuple[int, asyncio.Event]] = []

    async def until_passed(self, count: int) -> None:
        """Wait until so many datagrams have passed, in all."""
        if self.passed >= count:
            return
        event = asyncio.Event()
        self._wanted.append((count, event))
        await event.wait()

    async def rewrite(self, message: Peering) -> Peering | None:
        """What the other side is told instead; None for a candidate that is kept from it."""
        if not isinstance(message, Candidate) or not message.candidate:
            return message
        parts = message.candidate.split(" ")
        if len(parts) < _HOST_PARTS or parts[2].lower() != "udp" or parts[7] != "host":
            return None
        if parts[4] != self._address:
            return None
        parts[5] = self._made.get(parts[5]) or await self._proxy(parts[4], parts[5])
        return msgspec.structs.replace(message, candidate=" ".join(parts))

    async def _proxy(self, host: str, port: str) -> str:
        loop = asyncio.get_running_loop()
        outside, inside = _Side(self), _Side(self)
        outside.other, inside.other = inside, outside
        for side in (outside, inside):
            await loop.create_datagram_endpoint(
                lambda side=side: side,  # type: ignore[misc]
                local_addr=(self._address, 0),
            )
            self._sides.append(side)
        inside.peer = (host, int(port))
        assert outside.transport is not None  # noqa: S101
        made = str(outside.transport.get_extra_info("sockname")[1])
        self._made[port] = made
        return made

    def pass_on(self, data: bytes, side: _Side) -> None:
        """Treat one datagram as the weather says."""
        weather, chance = self.weather, self._random.random
        if weather.cut or chance() < weather.loss:
            return
        for _ in range(2 if chance() < weather.duplicate else 1):
            self.passed += 1
            for count, event in self._wanted:
                if self.passed >= count:
                    event.set()
            wait = weather.delay_s + weather.jitter_s * chance()
            if wait > 0:
                asyncio.get_running_loop().call_later(wait, side.send, data)
            else:
                side.send(data)

    def close(self) -> None:
        """End all proxies."""
        for side in self._sides:
            if side.transport is not None:
                side.transport.close()
