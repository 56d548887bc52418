"""The bad network, between two plain sockets: what is lost, late, doubled, cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sleap_rtc.protocol.peering import Answer, Candidate
from sleap_rtc.testing.impairment import ImpairedNetwork, Weather

HERE = "127.0.0.1"
ATTEMPT = "01977f00-0000-7000-8000-000000000000"


class Peer(asyncio.DatagramProtocol):
    """A socket that keeps what it gets."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.got.put_nowait((data, addr))

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])

    async def next(self) -> bytes:
        async with asyncio.timeout(60):
            return (await self.got.get())[0]


@pytest.fixture
async def peers() -> AsyncIterator[tuple[Peer, Peer]]:
    loop = asyncio.get_running_loop()
    made = [Peer(), Peer()]
    for peer in made:
        await loop.create_datagram_endpoint(lambda peer=peer: peer, local_addr=(HERE, 0))
    yield made[0], made[1]
    for peer in made:
        peer.transport.close()


@pytest.fixture
async def network() -> AsyncIterator[ImpairedNetwork]:
    made = ImpairedNetwork(HERE, Weather(), seed=7)
    yield made
    made.close()


def candidate(port: int, *, address: str = HERE, kind: str = "host", way: str = "udp") -> Candidate:
    line = f"candidate:1 1 {way} 2122260223 {address} {port} typ {kind} generation 0"
    return Candidate(attempt=ATTEMPT, candidate=line, mid="0", line=0)


async def dial(network: ImpairedNetwork, peer: Peer) -> tuple[str, int]:
    """Where the peer is to be reached, as the other side is told."""
    told = await network.rewrite(candidate(peer.port))
    assert isinstance(told, Candidate)
    words = told.candidate.split(" ")
    assert words[5] != str(peer.port)
    assert [*words[:5], *words[6:]] == [
        *candidate(peer.port).candidate.split(" ")[:5],
        *candidate(peer.port).candidate.split(" ")[6:],
    ]
    return HERE, int(words[5])


async def test_datagrams_pass_both_ways(network: ImpairedNetwork, peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    there = await dial(network, other)
    assert await dial(network, other) == there  # the same candidate has one proxy
    one.transport.sendto(b"hello", there)
    data, back = await asyncio.wait_for(other.got.get(), 60)
    assert data == b"hello"
    assert back[1] not in (one.port, there[1])
    other.transport.sendto(b"and back", back)
    assert await one.next() == b"and back"
    await network.until_passed(2)
    assert network.passed == 2


async def test_nothing_passes_a_cut(network: ImpairedNetwork, peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    there = await dial(network, other)
    for weather in (Weather(cut=True), Weather(loss=1.0)):
        network.weather = weather
        for _ in range(20):
            one.transport.sendto(b"lost", there)
        # What was sent over loopback is there at once; each turn of the loop takes one of them.
        for _ in range(40):
            await asyncio.sleep(0)
        assert network.passed == 0
    network.weather = Weather()
    one.transport.sendto(b"through", there)
    assert await other.next() == b"through"


async def test_losses_are_as_many_as_said_and_repeatable(peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    sent = [bytes([n]) for n in range(200)]
    lost = []
    for end in (b"first end", b"second end"):
        network = ImpairedNetwork(HERE, Weather(loss=0.25), seed=3)
        there = await dial(network, other)
        for datagram in sent + [end] * 50:  # one of which will pass
            one.transport.sendto(datagram, there)
        got = []
        while (data := await other.next()) != end:
            got.append(data)
        lost.append(set(sent) - set(got))
        network.close()
    assert lost[0] == lost[1]
    assert 30 < len(lost[0]) < 70


async def test_duplicates_arrive_twice(network: ImpairedNetwork, peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    network.weather = Weather(duplicate=1.0)
    one.transport.sendto(b"x", await dial(network, other))
    assert [await other.next(), await other.next()] == [b"x", b"x"]
    assert network.passed == 2


async def test_jitter_reorders_and_loses_nothing(
    network: ImpairedNetwork, peers: tuple[Peer, Peer]
) -> None:
    one, other = peers
    network.weather = Weather(delay_s=0.01, jitter_s=0.1)
    there = await dial(network, other)
    sent = [bytes([n]) for n in range(40)]
    for datagram in sent:
        one.transport.sendto(datagram, there)
    got = [await other.next() for _ in sent]
    assert sorted(got) == sent
    assert got != sent


async def test_only_the_namespace_s_own_addresses_are_told(network: ImpairedNetwork) -> None:
    answer = Answer(attempt=ATTEMPT, sdp="v=0")
    assert await network.rewrite(answer) is answer
    last = Candidate(attempt=ATTEMPT, candidate="")
    assert await network.rewrite(last) is last
    for other in (
        candidate(9, address="10.77.0.9"),
        candidate(9, kind="srflx"),
        candidate(9, way="tcp"),
        Candidate(attempt=ATTEMPT, candidate="candidate:1 1 udp"),
    ):
        assert await network.rewrite(other) is None


async def test_a_closed_network_passes_nothing(peers: tuple[Peer, Peer]) -> None:
    network = ImpairedNetwork(HERE, Weather(delay_s=0.01))
    one, other = peers
    there = await dial(network, other)
    one.transport.sendto(b"late", there)
    await asyncio.wait_for(network.until_passed(1), 60)
    network.close()
    one.transport.sendto(b"later", there)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.got.get(), 0.1)
