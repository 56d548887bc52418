"""TCP alone: a file from one process to another by ``sendfile``, written and synced.

Nothing is hashed, checked or encrypted: no way between two processes that leads
through the network is faster.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from bench.wire import Usage, Wire
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.testing import netns


async def transfer_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Send the file."""
    address = netns.inside() or "127.0.0.1"
    with socket.create_connection((address, await wire.expect("port"))) as connection:
        await wire.expect("go")
        usage = Usage()
        await asyncio.to_thread(_send, connection, Path(options["file"]))
        await wire.expect("done")
        return usage.stop()


def _send(connection: socket.socket, path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        connection.sendfile(file)


async def transfer_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Receive it."""
    with socket.create_server((netns.inside() or "127.0.0.1", 0)) as listener:
        wire.send("port", listener.getsockname()[1])
        connection, _ = await asyncio.to_thread(listener.accept)
    path = Path(options["into"]) / "tcp.bin"
    with connection:
        wire.send("go")
        usage = Usage()
        await asyncio.to_thread(_receive, connection, path, options["size"])
        used = usage.stop()
        wire.send("done")
    path.unlink()
    return used


def _receive(connection: socket.socket, path: Path, size: int) -> None:
    buffer = memoryview(bytearray(BLOCK))
    with path.open("wb", buffering=0) as file:
        while size:
            count = connection.recv_into(buffer[: min(BLOCK, size)])
            if not count:
                raise ConnectionError("the sender has ended")
            file.write(buffer[:count])
            size -= count
        os.fsync(file.fileno())
