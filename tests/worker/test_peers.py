"""Who is linked, what they offer, what they may fetch."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from sleap_rtc.auth.certificates import Member
from sleap_rtc.auth.handshake import Authenticated
from sleap_rtc.auth.membership import Membership
from sleap_rtc.errors import Conflict, LinkLost, NotPermitted
from sleap_rtc.transports.channel import no_requests
from sleap_rtc.worker.peers import MAX_GRANTED, MAX_OFFERED, Peers, asker_of

ROOM = "a" * 32
PACKAGE = "ab" * 32


class Silence:
    """A connection on which nothing arrives until it is closed."""

    def __init__(self) -> None:
        self.closed = False
        self._over = asyncio.Event()

    async def receive(self):
        await self._over.wait()
        raise LinkLost(peer="peer", why="closed")

    def send_text(self, data: bytes) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
        self._over.set()


def proven(session: str, purpose: str, device: str = "1" * 64) -> Authenticated:
    member = Member(
        room=ROOM,
        device=device,
        name="ada",
        role="member",
        expires=datetime.now(UTC) + timedelta(days=1),
    )
    return Authenticated(
        peer=member,
        own="f" * 64,
        session=session,
        purpose=purpose,
        version=1,
        features=frozenset(),
        membership=Membership(room=ROOM),
    )


@contextlib.asynccontextmanager
async def connected(peers: Peers, session: str, purpose: str):
    connection = Silence()
    task = asyncio.create_task(peers.accept(connection, proven(session, purpose)))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        await connection.close()
        await task


@pytest.fixture
def gone():
    return []


@pytest.fixture
def peers(gone):
    return Peers(no_requests, on_gone=gone.append)


async def test_an_offer_is_a_source_while_its_connection_lives(peers):
    asker = asker_of(proven("s", "control"))
    async with connected(peers, "s", "control"):
        peers.offered(asker, PACKAGE)
        with peers.sources(PACKAGE) as sources, peers.sources("cd" * 32) as others:
            assert not sources.current
            async with connected(peers, "s", "blocks"):
                assert len(sources.current) == 1
                assert not others.current
            assert not sources.current


async def test_an_offer_of_one_session_is_none_of_another(peers):
    async with connected(peers, "s", "control"), connected(peers, "t", "blocks"):
        peers.offered(asker_of(proven("s", "control")), PACKAGE)
        with peers.sources(PACKAGE) as sources:
            assert not sources.current


async def test_what_was_granted_and_offered_ends_with_the_control_connection(peers, gone):
    asker = asker_of(proven("s", "control"))
    async with connected(peers, "s", "blocks"):
        async with connected(peers, "s", "control"):
            peers.offered(asker, PACKAGE)
            peers.grant(asker, PACKAGE, SimpleNamespace())
        assert gone == ["s"]
        with peers.sources(PACKAGE) as sources:
            assert not sources.current


async def test_a_session_belongs_to_one_device(peers):
    async with connected(peers, "s", "control"):
        with pytest.raises(NotPermitted, match="another device"):
            await peers.accept(Silence(), proven("s", "blocks", device="2" * 64))


async def test_a_peer_may_fetch_from_so_many_packages_at_a_time(peers):
    asker = asker_of(proven("s", "control"))
    packages = [f"{number:064x}" for number in range(MAX_GRANTED + 1)]
    async with connected(peers, "s", "control"):
        for package in packages:
            peers.grant(asker, package, SimpleNamespace())
        assert [peers.is_granted(p) for p in packages] == [False] + [True] * MAX_GRANTED
    assert not any(map(peers.is_granted, packages))


async def test_a_peer_may_offer_so_many_packages_at_a_time(peers):
    asker = asker_of(proven("s", "control"))
    async with connected(peers, "s", "control"):
        for number in range(MAX_OFFERED):
            peers.offered(asker, f"{number:064x}")
        with pytest.raises(Conflict, match="1024 packages are offered"):
            peers.offered(asker, PACKAGE)
        peers.offered(asker, f"{0:064x}")  # again is not one more
    async with connected(peers, "s", "control"):
        peers.offered(asker, PACKAGE)


async def test_any_number_of_packages_may_be_offered_one_after_the_other(peers):
    asker = asker_of(proven("s", "control"))
    async with connected(peers, "s", "control"), connected(peers, "s", "blocks"):
        for number in range(MAX_OFFERED + 1):
            with peers.offering(asker, f"{number:064x}"):
                assert peers.has_source(f"{number:064x}")
            assert not peers.has_source(f"{number:064x}")
        with peers.offering(asker, PACKAGE):
            with peers.offering(asker, PACKAGE):  # the same push, over a new connection
                pass
            assert peers.has_source(PACKAGE)
            peers.offered(asker, PACKAGE)  # with a job
        assert peers.has_source(PACKAGE)
        with peers.offering(asker, "e" * 64):
            # Its connection ends first.
            peers._session(asker).offered.clear()
        assert not peers.has_source("e" * 64)
