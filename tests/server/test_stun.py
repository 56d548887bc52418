"""The STUN responder, over real sockets, and its limits."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from sleap_rtc.errors import Busy
from sleap_rtc.protocol.stun import make_request, read_response
from sleap_rtc.server.stun import SOURCE_BURST, TOTAL_RATE, Responder, StunServer

REQUEST = make_request(bytes(12))


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture(params=["127.0.0.1", "::1"])
async def server(
    request: pytest.FixtureRequest, counts: Counter[str]
) -> AsyncIterator[tuple[str, StunServer]]:
    if request.param == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback address")
    server = await StunServer.start(request.param, 0, count=lambda what: counts.update([what]))
    yield request.param, server
    server.close()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def client(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((host, 0))
    return made


async def test_a_device_learns_its_own_address(
    server: tuple[str, StunServer], counts: Counter[str]
) -> None:
    host, stun = server
    loop = asyncio.get_running_loop()
    with client(host) as device:
        transaction = os.urandom(12)
        await loop.sock_sendto(device, b"\xff" * 100, (host, stun.port))
        await loop.sock_sendto(device, make_request(transaction), (host, stun.port))
        async with asyncio.timeout(60):
            answer, _ = await loop.sock_recvfrom(device, 2_000)
        assert read_response(answer, transaction) == device.getsockname()[:2]
    assert counts == {"ignored": 1, "answered": 1}


async def test_a_taken_port_is_named(server: tuple[str, StunServer]) -> None:
    host, stun = server
    with pytest.raises(Busy) as caught:
        await StunServer.start(host, stun.port, count=lambda _: None)
    assert "--stun-port" in caught.value.hint_text


def test_one_address_gets_only_so_many_answers(counts: Counter[str]) -> None:
    now = 0.0
    responder = Responder(count=lambda what: counts.update([what]), clock=lambda: now)
    for _ in range(int(SOURCE_BURST) + 10):
        responder.respond(REQUEST, ("192.0.2.1", 1))
    assert counts == {"answered": int(SOURCE_BURST), "limited": 10}
    assert responder.respond(REQUEST, ("192.0.2.2", 1)) is not None
    now = 1.0
    assert responder.respond(REQUEST, ("192.0.2.1", 1)) is not None


def test_all_addresses_together_get_only_so_many(counts: Counter[str]) -> None:
    responder = Responder(count=lambda what: counts.update([what]), clock=lambda: 0.0)
    for number in range(int(TOTAL_RATE) + 10):
        responder.respond(REQUEST, (f"10.0.{number // 256}.{number % 256}", 1))
    assert counts == {"answered": int(TOTAL_RATE), "limited": 10}
