"""What is said while a worker is asked; ``endtoend/test_library.py`` really asks one."""

from __future__ import annotations

import contextlib

import pytest

from sleap_rtc.auth.store import DeviceStore, RoomEntry
from sleap_rtc.client.api import AsyncClient
from sleap_rtc.errors import PeerUnreachable
from sleap_rtc.testing.made_room import MadeRoom


@pytest.fixture
def silent(monkeypatch, home):
    """A room, whose workers are online and don't answer."""
    made = MadeRoom()
    server, chain = "http://127.0.0.1:9", made.owner_chain
    DeviceStore(home.root).save_room(
        RoomEntry(room=made.room, name="lab", server=server, role="owner", chain=chain)
    )

    @contextlib.asynccontextmanager
    async def library_of(_client, worker=None, *, room=None):
        raise PeerUnreachable(peer=worker or "gpu-9", why="no connection within 30 s")
        yield

    monkeypatch.setattr(AsyncClient, "library_of", library_of)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("command", [("list-models",), ("model-info", "fly")])
@pytest.mark.parametrize("worker", ["gpu-1", None])
def test_who_is_waited_for_is_said_meanwhile(cli, command, worker) -> None:
    named = ("--worker", worker) if worker else ()
    done = cli("worker", *command, *named, terminal=True)
    assert done.code == 5
    assert f"asking {worker or 'the worker'}" in done.err
    assert f"{worker or 'gpu-9'} cannot be reached: no connection within 30 s." in done.err
    # A program that reads the words of errors isn't told so.
    assert "asking" not in cli("worker", *command, *named).err
