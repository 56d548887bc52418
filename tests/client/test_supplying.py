"""Which sources a download has, and what takes the place of one that fails."""

from __future__ import annotations

import asyncio

import pytest

from sleap_rtc.client import supplying
from sleap_rtc.client.supplying import Supply, Ways, contents_of, in_storage
from sleap_rtc.domain import packages
from sleap_rtc.domain.models import ModelFile
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import Damaged, NotFound, StorageOff, StorageUnreachable
from sleap_rtc.files.packing import pack
from sleap_rtc.storage.objects import StoredObject
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource

FILES = (
    ModelFile(path="b/best.ckpt", size=3 * BLOCK, blake3="1" * 64),
    ModelFile(path="a.yaml", size=10, blake3="2" * 64),
    ModelFile(path="empty", size=0, blake3="3" * 64),
)
SIZE = 3 * BLOCK + 10


class Storage:
    """A room's storage that has some contents."""

    def __init__(self, *there: str, error: Exception | None = None) -> None:
        self.there, self.error, self.can = there, error, True
        self.asked: list[str] = []

    def open(self):
        if self.error is not None:
            raise self.error
        return self

    def key(self, blake3):
        return blake3

    def head(self, key):
        self.asked.append(key)
        size = next(file.size for file in FILES if file.blake3 == key)
        return StoredObject(key=key, size=size, etag="") if key in self.there else None


async def test_storage_is_asked_only_when_it_matters() -> None:
    storage = Storage("1" * 64, "2" * 64)
    for wish, large, asked in (("auto", 100, True), ("auto", 2**30, False), ("s3", 2**30, True)):
        storage.asked.clear()
        ways = Ways(wish=wish, large=large, storage=storage)
        stored, why = await in_storage(ways, SIZE, FILES)
        assert (stored, why) == ((SIZE, "") if asked else (None, "it isn't asked for so little"))
        # Of an empty file there is nothing to ask.
        assert sorted(storage.asked) == (["1" * 64, "2" * 64] if asked else [])
    assert await in_storage(Ways(wish="direct"), SIZE, FILES) == (None, "direct was asked for")
    ways = Ways(wish="s3", storage=Storage("2" * 64))
    assert await in_storage(ways, SIZE, FILES) == (10, "")


@pytest.mark.parametrize(
    ("storage", "files", "why"),
    [
        (None, FILES, "isn't installed here"),
        (Storage(), FILES[:1], "the hashes of the files aren't known"),
        (Storage(), FILES * 50, "128 files at most"),
        (Storage(error=StorageOff(server="lab")), FILES, "keeps no files"),
    ],
)
async def test_why_it_isnt_used(storage, files, why) -> None:
    ways = Ways(wish="s3", storage=storage)
    size = sum(file.size for file in files) if len(files) != 1 else SIZE
    stored, said = await in_storage(ways, size, files)
    assert stored is None
    assert why in said
    plan = ways.plan(SIZE, stored=stored, why=said)
    assert said in next(way.why for way in plan.without if way.kind == "s3")


def test_contents_are_in_the_order_of_the_package() -> None:
    assert contents_of(FILES) == ("2" * 64, "1" * 64, "3" * 64)


class Store(LocalSource):
    """Storage that fails when told to."""

    def __init__(self, packed) -> None:
        super().__init__(packed, name="the room's storage")
        self.errors: list[Exception] = []
        self.given = 0

    async def bring(self, package, file, block, size):
        if self.errors:
            raise self.errors[0]
        data = await LocalSource.block(self, package, file, block, size)
        self.given += len(data)
        return data, "s3"

    async def block(self, package, file, block, size):
        return (await self.bring(package, file, block, size))[0]


class Case:
    def __init__(self, root) -> None:
        (root / "file").write_bytes(bytes(range(256)) * 4096 * 12)
        self.packed = pack({"file": root / "file"})
        self.root = root
        self.store, self.peer = Store(self.packed), LocalSource(self.packed, name="gpu-1")
        self.said: list[str] = []

    async def fetch(self, supply: Supply, **options) -> None:
        with (
            supply.sources() as sources,
            await fetch(
                packages.ref(self.packed.package),
                sources=sources,
                destination="there",
                incoming=self.root / "incoming",
                window=BLOCK,
                **options,
            ) as staged,
        ):
            staged.discard()

    def ways(self, supply: Supply) -> set[str]:
        return {way for way, _ in supply.counted.came}


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


async def test_storage_and_a_peer_share(case) -> None:
    supply = Supply([Sources(case.peer)], case.store, size=12 * BLOCK, say=case.said.append)
    await case.fetch(supply)
    assert case.ways(supply) == {"s3", "webrtc"}
    assert supply.counted.received >= case.packed.package.size
    assert case.said == []


async def test_alone_until_it_fails(case) -> None:
    supply = Supply(
        [Sources(case.peer)], case.store, alone=True, size=12 * BLOCK, say=case.said.append
    )
    await case.fetch(supply)
    assert case.ways(supply) == {"s3"}

    supply = Supply(
        [Sources(case.peer)], Store(case.packed), alone=True, size=12 * BLOCK, say=case.said.append
    )
    case.store = supply._stored
    case.store.errors = [NotFound(message="There is no content in the storage.")]
    await case.fetch(supply)
    assert case.ways(supply) == {"webrtc"}
    [said] = case.said
    assert said.startswith("Storage fails, so it comes from the worker: there is no content")


class Rotten(Store):
    """Storage in which a block is wrong."""

    def __init__(self, packed) -> None:
        super().__init__(packed)
        self.damaged: dict[str, str] = {}

    async def bring(self, package, file, block, size):
        data, way = await super().bring(package, file, block, size)
        return (bytes(size) if block == 3 else data), way

    def was_wrong(self, file) -> None:
        self.damaged[str(file)] = "etag"


async def test_what_is_damaged_in_storage_comes_from_a_peer(case) -> None:
    for alone in (True, False):
        said: list[str] = []
        supply = Supply(
            [Sources(case.peer)],
            Rotten(case.packed),
            alone=alone,
            size=12 * BLOCK,
            say=said.append,
        )
        await case.fetch(supply)
        assert case.ways(supply) == {"s3", "webrtc"}
        if alone:
            assert said == [
                "Some of what storage has is damaged: it comes from the worker as well."
            ]
            assert supply.damaged == {"0": "etag"}
    assert Supply([], None, size=1, say=said.append).damaged == {}


async def test_damaged_and_nowhere_else(case) -> None:
    supply = Supply([], Rotten(case.packed), alone=True, size=12 * BLOCK, say=case.said.append)
    with pytest.raises(Damaged, match="block 4 of 12 was wrong 3 times"):
        await case.fetch(supply)
    assert supply.damaged == {"0": "etag"}


async def test_what_was_away_is_tried_again_and_what_refuses_is_not(case, monkeypatch) -> None:
    monkeypatch.setattr(supplying, "AGAIN_S", 0.01)
    case.store.errors = [StorageUnreachable(store="lab", why="it hung up")]
    supply = Supply([], case.store, size=12 * BLOCK, say=case.said.append)
    fetching = asyncio.create_task(case.fetch(supply))
    await asyncio.sleep(0.05)
    assert not fetching.done()
    case.store.errors.clear()
    await fetching
    assert case.ways(supply) == {"s3"}

    store = Store(case.packed)
    store.errors = [NotFound(message="There is none.")]
    supply = Supply([Sources(case.peer)], store, size=12 * BLOCK, say=case.said.append)
    await case.fetch(supply)
    assert case.said == ["Storage isn't used any more: there is none."]
