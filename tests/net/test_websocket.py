"""Servers that aren't ours, aren't there, or go away: each says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import CloseCode

from sleap_rtc.errors import LinkLost, ServerUnreachable
from sleap_rtc.net import address, websocket
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.websocket import WebSocket

HTTP_404 = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
ELSEWHERE = (
    b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:9/x\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


@contextlib.asynccontextmanager
async def answering(data: bytes | None) -> AsyncIterator[ServerAddress]:
    """A TCP server that says one thing and closes; None says nothing and waits."""
    over = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            if data is None:
                await over.wait()
            else:
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield ServerAddress(host="127.0.0.1", port=port, secure=False)
    over.set()
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def websocket_server(
    handler: Callable[[ServerConnection], Awaitable[None]],
) -> AsyncIterator[ServerAddress]:
    async with serve(handler, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield ServerAddress(host="127.0.0.1", port=port, secure=False)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no sleap-rtc server"),
        (b"", "broke|closed|no sleap-rtc|answer"),
        (HTTP_404, "HTTP 404"),
        (ELSEWHERE, "HTTP 302"),
    ],
)
async def test_what_is_no_server_of_ours(data: bytes, why: str) -> None:
    async with answering(data) as address:
        with pytest.raises(ServerUnreachable, match=why) as caught:
            await WebSocket.open(address, "/x")
        assert address.url in caught.value.message


async def test_nothing_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = ServerAddress(host="127.0.0.1", port=taken.getsockname()[1], secure=False)
        with pytest.raises(ServerUnreachable, match="nothing listens there"):
            await WebSocket.open(address, "/x")


async def test_a_name_that_does_not_exist() -> None:
    address = ServerAddress(host="nowhere.invalid", port=443, secure=True)
    why = r"nowhere\.invalid cannot be reached: its name can't be looked up"
    with pytest.raises(ServerUnreachable, match=why):
        await WebSocket.open(address, "/x")


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.ECONNREFUSED, "nothing listens there"), (errno.EHOSTUNREACH, "No route to host")],
)
async def test_several_addresses_of_a_name_fail_as_one(
    monkeypatch: pytest.MonkeyPatch, number: int, why: str
) -> None:
    loop = asyncio.get_running_loop()

    async def two(*_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", port)) for port in (9, 10)]

    async def fails(_: socket.socket, address: object) -> None:
        raise OSError(number, f"Connect call failed {address}")

    monkeypatch.setattr(loop, "getaddrinfo", two)
    monkeypatch.setattr(loop, "sock_connect", fails)
    address = ServerAddress(host="localhost", port=9, secure=False)
    with pytest.raises(ServerUnreachable, match=f"cannot be reached: {why}"):
        await WebSocket.open(address, "/x")


async def test_silence_is_given_up() -> None:
    async with answering(None) as address:
        with pytest.raises(ServerUnreachable, match=r"no answer within 0\.05 s"):
            await WebSocket.open(address, "/x", within=0.05)


async def test_tls_is_wanted_and_not_spoken() -> None:
    async with answering(HTTP_404) as address:
        secure = ServerAddress(host="127.0.0.1", port=address.port, secure=True)
        with pytest.raises(ServerUnreachable, match="TLS"):
            await WebSocket.open(secure, "/x")


async def test_frames_go_both_ways_as_text() -> None:
    async def echo(peer: ServerConnection) -> None:
        async for message in peer:
            await peer.send(f"{type(message).__name__} {message!s}")

    async with websocket_server(echo) as address:
        link = await WebSocket.open(address, "/x")
        await link.send(b"hello")
        assert await link.receive() == "str hello"
        await link.close()
        with pytest.raises(LinkLost, match="ended"):
            await link.send(b"again")


@pytest.mark.parametrize(
    ("code", "reason", "why"),
    [
        (CloseCode.SERVICE_RESTART, "", "stops or restarts"),
        (CloseCode.POLICY_VIOLATION, "not_trusted", "not_trusted"),
        (CloseCode.NORMAL_CLOSURE, "", "code 1000"),
    ],
)
async def test_why_a_connection_ended(code: CloseCode, reason: str, why: str) -> None:
    async def close(peer: ServerConnection) -> None:
        await peer.close(code, reason)

    async with websocket_server(close) as address:
        link = await WebSocket.open(address, "/x")
        with pytest.raises(LinkLost, match=why):
            await link.receive()
        await link.close()


async def test_a_connection_that_breaks_off() -> None:
    async def abort(peer: ServerConnection) -> None:
        peer.transport.abort()

    async with websocket_server(abort) as address:
        link = await WebSocket.open(address, "/x")
        with pytest.raises(LinkLost, match="broke off"):
            await link.receive()
        await link.close()


async def test_a_frame_that_is_too_large_ends_the_connection() -> None:
    async def shout(peer: ServerConnection) -> None:
        await peer.send("x" * 70_000)
        await peer.wait_closed()

    async with websocket_server(shout) as address:
        link = await WebSocket.open(address, "/x")
        with pytest.raises(LinkLost):
            await link.receive()
        await link.close()


async def test_a_cancelled_close_still_frees_the_socket() -> None:
    over = asyncio.Event()

    async def deaf(peer: ServerConnection) -> None:
        peer.transport.pause_reading()  # so the closing handshake never ends
        await over.wait()
        peer.transport.abort()  # nor does this side wait for its end

    async with websocket_server(deaf) as address:
        link = await WebSocket.open(address, "/x")
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        assert not closing.done()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(LinkLost):
            await link.receive()
        over.set()


@pytest.mark.parametrize("unsent", [False, True])
async def test_nobody_waits_long_for_a_server_that_is_gone(
    unsent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "CLOSE", 0.01)
    monkeypatch.setattr(websocket, "LAST_WORDS", 0.6)
    over = asyncio.Event()

    async def deaf(peer: ServerConnection) -> None:
        peer.transport.pause_reading()
        await over.wait()
        peer.transport.abort()

    async with websocket_server(deaf) as address:
        link = await WebSocket.open(address, "/x")
        sending = asyncio.create_task(link.send(b"x" * (16 << 20) if unsent else b"x"))
        await asyncio.sleep(0.05)
        began = asyncio.get_running_loop().time()
        await link.close()
        took = asyncio.get_running_loop().time() - began
        over.set()
        await asyncio.wait([sending])  # nor does what is being sent wait any more
    # What was said before may take its time to leave.
    assert 0.6 <= took < 5 if unsent else took < 0.6


class At:
    """A connection that was made from some address."""

    def __init__(self, *address: object) -> None:
        self.local_address = address


class Homeless(socket.socket):
    """What binding says on a machine that hasn't the address."""

    def bind(self, address: Any) -> None:
        raise OSError(errno.EADDRNOTAVAIL, f"{address} is gone")


def test_an_address_that_the_machine_has_no_more_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ServerAddress(host="127.0.0.1", port=1, secure=False)
    here = [WebSocket(At(*at), server) for at in (("127.0.0.1", 5), ("::1", 5, 0, 0))]  # type: ignore[arg-type]
    assert [each.uprooted for each in here] == [False, False]
    monkeypatch.setattr(address.socket, "socket", Homeless)
    assert [each.uprooted for each in here] == [True, True]
