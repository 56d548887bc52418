"""Signing in: the exchange at the beginning of each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import DeviceId
from sleap_rtc.errors import DeadlineExceeded, ProtocolError, ServerUnreachable, VersionMismatch
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.events import Connected
from sleap_rtc.net.websocket import WebSocket
from sleap_rtc.protocol.codec import Message
from sleap_rtc.protocol.signaling import (
    PATH,
    SIGN_IN_CONTEXT,
    SIGNALING_VERSION,
    Challenge,
    Refused,
    SignedIn,
    SignIn,
    from_device,
    from_server,
    sign_in_payload,
)

DEADLINE: Final = 10.0
"""Seconds that the exchange may take."""
_CHECK: Final = "Check the address, and that a sleap-rtc server runs there."

M = TypeVar("M", bound=Message)


class Credentials(msgspec.Struct, frozen=True):
    """Who signs in, and with what.

    Attributes:
        device: The device's id.
        sign: Signs as this device: (context, payload) → 64 bytes.
        name: What the device calls itself.
        program: Name and version of the program.
        instance: Made once by each client; see :class:`~sleap_rtc.protocol.signaling.SignIn`.
        setup_code: Registers the device, if it isn't registered yet.
        invite: A join chain as JSON texts; registers the device for that room.
    """

    device: DeviceId
    sign: Callable[[str, bytes], bytes]
    name: str
    program: str
    instance: str
    setup_code: str | None = None
    invite: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        return f"Credentials(device={self.device!r})"


async def sign_in(server: ServerAddress, credentials: Credentials) -> tuple[WebSocket, Connected]:
    """Connect to a server and sign in.

    Raises:
        ServerUnreachable: No server there, or none of sleap-rtc.
        NotSignedIn: The server doesn't know the device.
        NotPermitted: The set-up code or the invite is no good.
        NotTrusted: The signature isn't accepted.
        VersionMismatch: Server and device speak no common version.
        DeadlineExceeded: The server doesn't answer.
        ProtocolError: What it answers breaks the protocol.
        LinkLost: The connection ended meanwhile.
    """
    socket = await WebSocket.open(server, PATH)
    try:
        async with asyncio.timeout(DEADLINE):
            told = await _exchange(socket, server, credentials)
    except BaseException as error:
        await socket.close()
        if isinstance(error, TimeoutError):
            what, seconds = f"Signing in at {server.url}", f"{DEADLINE:g}"
            raise DeadlineExceeded(what=what, seconds=seconds, hint=_CHECK) from None
        raise
    return socket, Connected(
        connection=told.connection,
        ice_servers=told.ice_servers,
        may_create_rooms=told.may_create_rooms,
    )


async def _exchange(socket: WebSocket, server: ServerAddress, who: Credentials) -> SignedIn:
    try:
        challenge = await _expect(socket, Challenge)
    except ProtocolError as error:
        logger.debug("{}", error)
        why = "it answers, but not as a sleap-rtc server"
        raise ServerUnreachable(url=server.url, why=why, hint=_CHECK) from None
    if SIGNALING_VERSION not in challenge.versions:
        theirs = ", ".join(str(version) for version in challenge.versions)
        raise VersionMismatch(peer="The server", theirs=theirs, ours=str(SIGNALING_VERSION))
    payload = sign_in_payload(nonce=challenge.nonce, server=server.dialled, device=who.device)
    answer = SignIn(
        version=SIGNALING_VERSION,
        device=who.device,
        signature=who.sign(SIGN_IN_CONTEXT, payload).hex(),
        name=who.name,
        program=who.program,
        instance=who.instance,
        setup_code=who.setup_code,
        invite=who.invite,
    )
    await socket.send(from_device.encode(answer))
    return await _expect(socket, SignedIn)


async def _expect(socket: WebSocket, kind: type[M]) -> M:
    message = from_server.decode(await socket.receive(), peer="the server")
    if isinstance(message, Refused):
        raise message.error
    if not isinstance(message, kind):
        raise ProtocolError(peer="the server", why="a message out of turn")
    return message
