"""aiortc's data channel on asyncio's own loop: the same messages, nothing hashed or written."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from bench.bare import MESSAGE
from bench.wire import Usage, Wire
from sleap_rtc.transports.connection import HIGH_WATER


def _connection() -> RTCPeerConnection:
    # Without a configuration it would ask a public STUN server.
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def _describe(connection: RTCPeerConnection, description: Any, wire: Wire) -> None:
    await connection.setLocalDescription(description)
    wire.send(connection.localDescription.type, connection.localDescription.sdp)


async def transfer_sender(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Send everything as fast as the channel takes it."""
    connection = _connection()
    channel = connection.createDataChannel("blocks")
    channel.bufferedAmountLowThreshold = HIGH_WATER // 4
    opened, room = asyncio.Event(), asyncio.Event()
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", room.set)
    await _describe(connection, await connection.createOffer(), wire)
    answer = RTCSessionDescription(await wire.expect("answer"), "answer")
    await connection.setRemoteDescription(answer)
    await opened.wait()
    await wire.expect("go")
    piece = os.urandom(MESSAGE)
    usage = Usage()
    for _ in range(options["size"] // MESSAGE):
        if channel.bufferedAmount >= HIGH_WATER:
            room.clear()
            await room.wait()
        channel.send(piece)
    await wire.expect("done")
    used = usage.stop()
    wire.send("bye")
    await connection.close()
    return used


async def transfer_receiver(wire: Wire, options: dict[str, Any]) -> dict[str, Any]:
    """Receive everything."""
    connection = _connection()
    left = options["size"] // MESSAGE * MESSAGE
    finished = asyncio.Event()
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def take(data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if not left:
            finished.set()

    def taken(channel: Any) -> None:
        channel.on("message", take)
        arrived.set_result(channel)

    connection.on("datachannel", taken)
    offer = RTCSessionDescription(await wire.expect("offer"), "offer")
    await connection.setRemoteDescription(offer)
    await _describe(connection, await connection.createAnswer(), wire)
    await arrived
    wire.send("go")
    usage = Usage()
    await finished.wait()
    used = usage.stop()
    wire.send("done")
    await wire.expect("bye")
    await connection.close()
    return used
