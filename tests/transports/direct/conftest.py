"""Two ends of a direct connection in one process, with TLS and without."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from blake3 import blake3

from sleap_rtc.domain.packages import BLOCK, FileEntry, listing_of, package, ref
from sleap_rtc.errors import NotFound, SourceChanged
from sleap_rtc.protocol import direct
from sleap_rtc.transports.direct import addresses, meeting
from sleap_rtc.transports.direct.identity import Identity
from sleap_rtc.transports.direct.wire import Wire


class MadeFile:
    """A package of one file, whose blocks are each of one byte's value."""

    def __init__(self, blocks: int, *, last: int = 1000) -> None:
        self.content = [bytes([n % 251]) * BLOCK for n in range(blocks - 1)] + [b"z" * last]
        hashes = b"".join(blake3(block).digest() for block in self.content)
        size = (blocks - 1) * BLOCK + last
        self.package = package([FileEntry(path="data.bin", size=size, hashes=hashes)])
        self.ref = ref(self.package)
        self.broken: set[int] = set()
        self.read_at = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def listing(self) -> bytes:
        return listing_of(self.package.files)

    def read(self, file: int, block: int) -> bytes:
        self.read_at.set()
        assert self.go_on.wait(60)
        if file or block >= len(self.content):
            raise NotFound(message="There is no such block.")
        if block in self.broken:
            raise SourceChanged(path="data.bin")
        return self.content[block]

    async def fetch_from(self, source, *, at_once: int = 8) -> None:
        """Fetch every block, as a transfer would, and compare."""
        window = asyncio.Semaphore(at_once)

        async def one(index: int) -> bytes:
            async with window:
                return await source.block(self.ref.id, 0, index, len(self.content[index]))

        found = await asyncio.gather(*(one(i) for i in range(len(self.content))))
        assert found == self.content


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """These limits are for networks: that this machine is busy is no reason to fail."""
    monkeypatch.setattr(direct, "WITHIN_S", 60.0)
    monkeypatch.setattr(meeting, "PROVEN_WITHIN_S", 60.0)


@pytest.fixture(scope="session")
def identities() -> tuple[Identity, Identity]:
    return Identity(), Identity()


@pytest.fixture
def made() -> MadeFile:
    return MadeFile(12)


@pytest.fixture(params=["plain", "tls"])
async def wires(request, identities):
    """Two proven connections' ends, as lanes take them."""
    ends = [Wire(each, peer="peer") for each in socket.socketpair()]
    for wire in ends:
        wire.sock.setblocking(False)
    if request.param == "tls":
        contexts = [
            identities[n].tls(peer=identities[1 - n].certificate, listens=n == 1) for n in (0, 1)
        ]
        await asyncio.gather(
            *(wire.secure(contexts[n], listens=n == 1) for n, wire in enumerate(ends))
        )
    yield ends
    for wire in ends:
        wire.close()


@pytest.fixture
def loopback(monkeypatch):
    """Loopback stands for the network: it is the only one that tests may use everywhere."""
    monkeypatch.setattr(meeting, "own_hosts", lambda: ["127.0.0.1"])
    monkeypatch.setattr(addresses, "usable", lambda host: host == "127.0.0.1")
