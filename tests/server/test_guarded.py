"""Guests who say little, or much that reaches no application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.frames import Frame, Opcode

from sleap_rtc.protocol.signaling import PATH
from sleap_rtc.server import guarded
from sleap_rtc.testing.server import LoopServer, running_server, server_settings


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopServer]:
    async with running_server(server_settings(tmp_path / "data")) as found:
        yield found


def dial(server: LoopServer) -> connect:
    return connect(
        server.address.websocket_url + PATH, compression=None, proxy=None, close_timeout=1
    )


async def lives(server: LoopServer) -> None:
    async with dial(server) as peer, asyncio.timeout(60):
        await peer.recv()


async def until_cut_off(reader: asyncio.StreamReader) -> bytes:
    heard = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1_000):
                heard += part
    return heard


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /healthz HTTP/1.1\r\nx: ", b"POST /x HTTP/1.1\r\ncontent-length: 9\r\n\r\n"],
    ids=["nothing", "half a request", "a body that never comes"],
)
async def test_who_says_nothing_is_cut_off(
    server: LoopServer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(guarded, "REQUEST_WITHIN", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.info.port)
    writer.write(said)
    await until_cut_off(reader)
    writer.close()
    monkeypatch.undo()
    await lives(server)


async def test_a_websocket_outlives_that_deadline(
    server: LoopServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    within, begun = 0.05, False
    while not begun:  # on a busy machine beginning may take longer than that
        within *= 2
        monkeypatch.setattr(guarded, "REQUEST_WITHIN", within)
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(InvalidMessage, ConnectionClosed, OSError):
                peer = await stack.enter_async_context(dial(server))
                await peer.recv()
                begun = True
            if begun:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(peer.recv(), 2 * within)
                await (await peer.ping())


async def test_one_request_for_each_connection(server: LoopServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.info.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
    heard = await until_cut_off(reader)
    assert heard.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in heard
    writer.close()


async def flood(peer: ClientConnection, opcode: Opcode, *, fin: bool, times: int) -> None:
    """Frames that no polite client sends."""
    protocol = peer.protocol
    for _ in range(times):
        protocol.send_frame(Frame(opcode, b"", fin=fin))
        peer.send_data()
        await asyncio.sleep(0)


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_who_pings_without_end_is_cut_off(server: LoopServer, opcode: Opcode) -> None:
    async with dial(server) as peer:
        await peer.recv()
        with contextlib.suppress(ConnectionClosed, OSError):
            await flood(peer, opcode, fin=True, times=10 * int(guarded.CONTROL_BURST))
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(peer.recv(), 60)
    await lives(server)


async def test_a_message_in_endless_parts_is_cut_off(server: LoopServer) -> None:
    async with dial(server) as peer:
        await peer.recv()
        with contextlib.suppress(ConnectionClosed, OSError):
            await flood(peer, Opcode.TEXT, fin=False, times=1)
            await flood(peer, Opcode.CONT, fin=False, times=guarded.MAX_FRAGMENTS + 1)
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(peer.recv(), 60)
    await lives(server)
