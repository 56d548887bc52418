"""A model's files into a real store behind HTTP, and out of it again."""

from __future__ import annotations

import asyncio
import random
import threading
from types import SimpleNamespace

import pytest

from sleap_rtc.client.storing_models import store_model
from sleap_rtc.client.supplying import Ways, storage_source
from sleap_rtc.domain.packages import ref
from sleap_rtc.errors import NotFound
from sleap_rtc.files.packing import pack
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch

SIZES = {"best.ckpt": 6_000_000, "config.yaml": 100, "empty": 0}


class Room:
    """A room's storage whose server is a folder behind HTTP."""

    can = True

    def __init__(self, endpoint: StoreEndpoint) -> None:
        self._store = endpoint.store

    def open(self):
        return self

    def key(self, blake3):
        return f"rooms/lab/files/{blake3}"

    def __getattr__(self, name):
        return getattr(self._store, name)


@pytest.fixture
def endpoint(tmp_path):
    with StoreEndpoint(tmp_path / "store") as running:
        yield running


@pytest.fixture
def packed(tmp_path):
    root = tmp_path / "model"
    root.mkdir()
    for name, size in SIZES.items():
        (root / name).write_bytes(random.Random(name).randbytes(size))
    # As in a library: files are named in its root.
    return pack({name: root / name for name in SIZES}, root=root)


def mover(tmp_path, storage):
    return SimpleNamespace(ways=Ways(storage=storage, uploads=tmp_path / "uploads"))


async def test_it_is_stored_once_and_can_be_fetched_from_there(tmp_path, endpoint, packed) -> None:
    room, told = Room(endpoint), []
    assert await store_model(mover(tmp_path, room), packed, told.append) == sum(SIZES.values())
    assert told[-1].done == told[-1].total == sum(SIZES.values())
    endpoint.requests.clear()
    assert await store_model(mover(tmp_path, room), packed, told.append) == 0
    assert endpoint.requests == []

    contents = [packed.file_hashes[entry.path] for entry in packed.package.files]
    source = storage_source(room, ref(packed.package), contents)
    with await fetch(
        ref(packed.package),
        sources=Sources(source),
        destination="there",
        incoming=tmp_path / "incoming",
    ) as staged:
        for name in SIZES:
            assert (staged.path / name).read_bytes() == (packed.root / name).read_bytes()
    source.close()


async def test_given_up_it_goes_on_with_the_next_call(tmp_path, endpoint, packed) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(_method, number):
        if number == 1:
            reached.set()
            go_on.wait(60)

    endpoint.fault = wait
    storing = asyncio.create_task(
        store_model(mover(tmp_path, Room(endpoint)), packed, lambda _: None)
    )
    await asyncio.to_thread(reached.wait, 10)
    storing.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert await store_model(mover(tmp_path, Room(endpoint)), packed, lambda _: None) <= sum(
        SIZES.values()
    )


async def test_without_storage(tmp_path, packed) -> None:
    with pytest.raises(NotFound, match="no storage"):
        await store_model(mover(tmp_path, None), packed, lambda _: None)
