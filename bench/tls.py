"""TLS without any of our protocol: what a direct connection costs at the least.

One connection of TLS 1.3 over TCP, blocking sockets in threads. The sender
reads and hashes the file in blocks of 1 MiB, the receiver hashes each block,
writes it in a thread of its own, and syncs at the end.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from blake3 import blake3

from bench.wire import Usage, Wire
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.testing import netns
from sleap_rtc.transports.direct.identity import Identity

AHEAD = 12
"""Blocks that wait to be written at most, as in the product."""


def _secured(sock: socket.socket, identity: Identity, peer: str, *, listens: bool) -> ssl.SSLSocket:
    context = identity.tls(peer=bytes.fromhex(peer), listens=listens)
    return context.wrap_socket(sock, server_side=listens)


async def transfer_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Send the file."""
    identity = Identity()
    wire.send("certificate", identity.certificate.hex())
    peer = await wire.expect("certificate")
    port = await wire.expect("port")
    plain = socket.create_connection((netns.inside() or "127.0.0.1", port))
    connection = await asyncio.to_thread(_secured, plain, identity, peer, listens=False)
    await wire.expect("go")
    usage = Usage()
    await asyncio.to_thread(_send, connection, Path(options["file"]))
    await wire.expect("done")
    used = usage.stop()
    connection.close()
    return used


def _send(connection: ssl.SSLSocket, path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            blake3(block).digest()
            connection.sendall(block)


async def transfer_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Receive it."""
    identity = Identity()
    wire.send("certificate", identity.certificate.hex())
    peer = await wire.expect("certificate")
    with socket.create_server((netns.inside() or "127.0.0.1", 0)) as listener:
        wire.send("port", listener.getsockname()[1])
        plain, _ = await asyncio.to_thread(listener.accept)
    connection = await asyncio.to_thread(_secured, plain, identity, peer, listens=True)
    path = Path(options["into"]) / "tls.bin"
    wire.send("go")
    usage = Usage()
    await asyncio.to_thread(_receive, connection, path, options["size"])
    used = usage.stop()
    wire.send("done")
    connection.close()
    path.unlink()
    return used


def _receive(connection: ssl.SSLSocket, path: Path, size: int) -> None:
    arrived: queue.Queue[bytes | None] = queue.Queue(AHEAD)
    writer = threading.Thread(target=_write, args=(arrived, path))
    writer.start()
    buffer = memoryview(bytearray(BLOCK))
    while size:
        at, wanted = 0, min(BLOCK, size)
        while at < wanted:
            count = connection.recv_into(buffer[at:wanted])
            if not count:
                raise ConnectionError("the sender has ended")
            at += count
        arrived.put(bytes(buffer[:wanted]))
        size -= wanted
    arrived.put(None)
    writer.join()


def _write(arrived: queue.Queue[bytes | None], path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while (block := arrived.get()) is not None:
            blake3(block).digest()
            file.write(block)
        os.fsync(file.fileno())
