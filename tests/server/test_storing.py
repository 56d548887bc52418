"""Opening the storage and tending it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleap_rtc.config import Settings
from sleap_rtc.errors import StorageUnreachable
from sleap_rtc.server.requests import Desk
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.storing import SOON, Storage, open_storage
from sleap_rtc.server.upload_table import LOT
from sleap_rtc.testing.server import server_settings


def now() -> datetime:
    return datetime.now(UTC)


def opened(settings: Settings) -> tuple[Store, Storage | None]:
    data_dir = settings.serving.data_dir
    prepare_data_dir(data_dir)
    store = Store(data_dir)
    return store, open_storage(settings, store, Desk(store, now), now)


def test_in_the_servers_folder_or_elsewhere_or_nowhere(tmp_path: Path) -> None:
    for changes, folder in (
        ({}, tmp_path / "data" / "storage"),
        ({"server_storage_dir": tmp_path / "big disk"}, tmp_path / "big disk"),
    ):
        store, found = opened(server_settings(tmp_path / "data", **changes))
        assert found is not None
        assert folder.is_dir()
        store.close()
    store, found = opened(server_settings(tmp_path / "data", server_storage="off"))
    assert found is None
    store.close()


async def test_it_is_tended_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, found = opened(server_settings(tmp_path / "data"))
    assert found is not None
    swept = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> int:
        raise StorageUnreachable(store="it", why="it is away")

    def sweep() -> int:
        loop.call_soon_threadsafe(swept.set)
        return 0

    monkeypatch.setattr(found.desk, "sweep", fail)
    monkeypatch.setattr(found.folder, "sweep", sweep)
    tending = asyncio.create_task(found.tend(every=0))
    async with asyncio.timeout(60):
        await swept.wait()
        swept.clear()
        await swept.wait()
    assert not tending.done()
    tending.cancel()
    await asyncio.wait([tending])
    store.close()


async def test_after_much_that_was_over_it_looks_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, found = opened(server_settings(tmp_path / "data"))
    assert found is not None
    gone = iter([LOT, LOT - 1])
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(found.desk, "sweep", lambda: next(gone))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await found.tend(every=100.0)
    assert pauses == [100.0, SOON, 100.0]
    store.close()
