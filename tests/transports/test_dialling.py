"""A dial that nobody waits for any more leaves no connection open, at whatever instant it ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from sleap_rtc.errors import NotTrusted, PeerUnreachable
from sleap_rtc.transports.link import Link

TURNS = range(8)
"""Turns of the event loop between the connection's coming about and what ends the dial."""


class Connection:
    """One that has just come about."""

    def __init__(self) -> None:
        self.ended = ""
        self.closing = asyncio.Event()

    def abandon(self, why: str) -> None:
        self.ended = self.ended or why

    async def close(self) -> None:
        self.closing.set()
        await asyncio.Event().wait()  # the peer takes its time


class Board:
    """Makes connections when it is told to.

    Args:
        role: The peer's.
        deaf: Whether a dial that is cancelled in its last step ends well all the same.
    """

    ways = None

    def __init__(self, role: str = "worker", *, deaf: bool = False) -> None:
        self.connection = Connection()
        self.presence = SimpleNamespace(connection="1", device="d")
        self.asked, self.comes = asyncio.Event(), asyncio.Event()
        self._deaf = deaf
        self._peer = SimpleNamespace(role=role, name="gpu-1")

    async def dial(self, **_: object) -> tuple[Connection, Any]:
        self.asked.set()
        try:
            await self.comes.wait()
        except asyncio.CancelledError:
            if not self._deaf:
                self.connection.abandon("not connected")
                raise
        return self.connection, SimpleNamespace(peer=self._peer)

    def begin(self, look: asyncio.Event) -> asyncio.Task[Any]:
        link = Link(self, room="a" * 32, locate=lambda: self.presence, name="gpu-1")  # type: ignore[arg-type]
        return asyncio.create_task(link._dial("blocks", look))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleap_rtc.transports.link.Channel", lambda *_given, **_more: "channel")


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("count", TURNS)
async def test_cancelled_about_when_it_ends(count: int, deaf: bool) -> None:
    board = Board(deaf=deaf)
    dialling = board.begin(asyncio.Event())
    await board.asked.wait()
    board.comes.set()
    await turns(count)
    dialling.cancel()
    await asyncio.wait([dialling])
    await turns(3)
    assert dialling.cancelled() is bool(board.connection.ended)


@pytest.mark.parametrize("count", TURNS)
async def test_the_peer_moves_about_when_it_ends(count: int) -> None:
    board, look = Board(deaf=True), asyncio.Event()
    dialling = board.begin(look)
    await board.asked.wait()
    board.presence = SimpleNamespace(connection="2", device="d")
    look.set()
    await turns(count)
    board.comes.set()
    await asyncio.wait([dialling])
    await turns(3)
    moved = isinstance(dialling.exception(), PeerUnreachable)
    assert moved is bool(board.connection.ended)


async def test_cancelled_while_who_may_not_be_there_is_told_so() -> None:
    board = Board("viewer")
    board.comes.set()
    dialling = board.begin(asyncio.Event())
    await board.connection.closing.wait()
    dialling.cancel()
    await asyncio.wait([dialling])
    await turns(3)
    assert board.connection.ended


async def test_who_may_not_be_there_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board("viewer")
    board.comes.set()

    async def close() -> None:
        board.connection.abandon("closed")

    monkeypatch.setattr(board.connection, "close", close)
    with pytest.raises(NotTrusted, match="viewer of the room"):
        await board.begin(asyncio.Event())
    assert board.connection.ended == "closed"
