"""A room, its people, and their clients at a server, for tests of whatever speaks to one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.auth.signed import chain_to_texts
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.signaling import SignalingClient
from sleap_rtc.testing.made_room import MadeRoom


class Lab:
    """A room, its owner, and clients at one server.

    Args:
        address: The server's.
        setup_code: Registers the owner's device.
        seed: Another one is another room with other people; see :class:`MadeRoom`.
    """

    def __init__(self, address: ServerAddress, setup_code: str | None, seed: int = 0) -> None:
        self.address, self.setup_code = address, setup_code
        self.made = MadeRoom(seed, now=datetime.now(UTC))

    @property
    def room(self) -> RoomId:
        """The room's id."""
        return self.made.room

    @property
    def owner_chain(self) -> tuple[str, ...]:
        """The owner's chain, as it goes to a server."""
        return chain_to_texts(self.made.owner_chain)

    def client(self, key: SigningKey, **changes: Any) -> SignalingClient:
        """A client that isn't started yet; changes are the client's own arguments."""
        given: dict[str, Any] = {"device": key.device, "sign": key.sign, "name": "box"}
        return SignalingClient(self.address, **(given | changes))

    def joined(self, key: SigningKey, once: int = 100, **changes: Any) -> tuple[str, ...]:
        """The chain of a device that joined by invite ``once``, as it goes to a server."""
        return chain_to_texts(self.made.joined(key, once, **changes))

    @contextlib.asynccontextmanager
    async def owner(self) -> AsyncIterator[SignalingClient]:
        """The owner, signed in, with the room made known and entered."""
        async with self.client(self.made.owner, setup_code=self.setup_code) as client:
            await client.start()
            await client.create_room(self.room, name="lab", chain=self.owner_chain)
            await client.enter_room(self.room, chain=self.owner_chain, name="laptop", kind="client")
            yield client

    @contextlib.asynccontextmanager
    async def worker(
        self, key: SigningKey, *, name: str = "gpu", once: int = 100, **changes: Any
    ) -> AsyncIterator[SignalingClient]:
        """A device that came by an invite, online as a worker."""
        chain = self.joined(key, once, **changes)
        async with self.client(key, invite=chain) as client:
            await client.start()
            await client.enter_room(self.room, chain=chain, name=name, kind="worker")
            yield client
