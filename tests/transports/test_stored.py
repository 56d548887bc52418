"""Blocks from a real store behind HTTP, which misbehaves when told to."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, listing_of
from sleap_rtc.errors import NotFound, StorageUnreachable
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience, Pauses
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.stored import LINKS, MANNER, RUN, StorageSource, _Ahead, manner_beside

SIZES = {"best.ckpt": 20 * BLOCK + 17, "config.yaml": 100, "empty": 0}
QUICK = Patience(attempts=2, base=0.0, cap=0.0)


class Case:
    """A package, and a store that has its files by their content, and its listing by its id."""

    def __init__(self, root: Path, endpoint: StoreEndpoint) -> None:
        self.root, self.endpoint = root, endpoint
        self.links: list[list[str]] = []
        self.lock = threading.Lock()
        (root / "source").mkdir()
        for name, size in SIZES.items():
            (root / "source" / name).write_bytes(random.Random(name).randbytes(size))
        self.packed: Packed = pack({name: root / "source" / name for name in SIZES})
        self.ref = packages.ref(self.packed.package)
        for name, blake3 in self.packed.file_hashes.items():
            self.put(root / "source" / name, blake3)
        listing = root / "listing"
        listing.write_bytes(listing_of(self.packed.package.files))
        self.put(listing, self.ref.id)

    def put(self, path: Path, blake3: str) -> None:
        upload_file(self.endpoint.store, path, self.key(blake3), state=self.root / "state")

    def key(self, blake3: str) -> str:
        return f"rooms/lab/files/{blake3}"

    def ask(self, contents: Sequence[str]) -> list[SignedRequest]:
        with self.lock:
            self.links.append(list(contents))
        return self.endpoint.store.download_requests([self.key(each) for each in contents])

    def source(self) -> StorageSource:
        contents = [self.packed.file_hashes[e.path] for e in self.packed.package.files]
        return StorageSource(self.ref.id, contents, self.ask, patience=QUICK)

    @property
    def reads(self) -> int:
        return sum(method == "GET" for method, _ in self.endpoint.requests)

    async def fetch(self, sources: Sources) -> None:
        with await fetch(
            self.ref, sources=sources, destination="there", incoming=self.root / "incoming"
        ) as staged:
            for name in SIZES:
                found = (staged.path / name).read_bytes()
                assert found == (self.root / "source" / name).read_bytes()
            staged.discard()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    root = tmp_path_factory.mktemp("stored")
    with StoreEndpoint(root / "store") as endpoint:
        yield Case(root, endpoint)


@pytest.fixture
def case(stored: Case) -> Iterator[Case]:
    stored.endpoint.requests.clear()
    stored.links.clear()
    yield stored
    stored.endpoint.fault = lambda _method, _number: None


@pytest.fixture
def source(case: Case) -> Iterator[StorageSource]:
    made = case.source()
    yield made
    made.close()


async def test_a_package_comes_from_storage_alone_in_long_reads(
    case: Case, source: StorageSource
) -> None:
    sources = Sources()
    sources.add(source, MANNER)
    await case.fetch(sources)
    # The listing, the small file, and 21 blocks in as few reads as there can be.
    assert case.reads == 2 + -(-21 * BLOCK // RUN)
    # One question for the listing, and one for everything else.
    assert sorted(len(asked) for asked in case.links) == [1, 3]


async def test_neighbours_that_are_asked_together_are_read_together(
    case: Case, source: StorageSource
) -> None:
    file = [entry.path for entry in case.packed.package.files].index("best.ckpt")
    data = (case.root / "source" / "best.ckpt").read_bytes()
    asked = [3, 4, 5, 9, 20, 3]
    found = await asyncio.gather(
        *(source.block(case.ref.id, file, n, min(BLOCK, len(data) - n * BLOCK)) for n in asked)
    )
    assert found == [data[n * BLOCK : (n + 1) * BLOCK] for n in asked]
    assert case.reads == 4


async def test_storage_and_a_peer_share_one_download(case: Case, source: StorageSource) -> None:
    peer = LocalSource(case.packed)
    sources = Sources()
    sources.add(source, manner_beside(case.ref.size))
    sources.add(peer)
    await case.fetch(sources)
    assert case.reads
    peer.close()


@pytest.mark.parametrize(("size", "runs"), [(0, 1), (60 * BLOCK, 1), (70 * BLOCK, 2), (2**40, 6)])
def test_beside_others_it_doesnt_take_all_of_a_small_package(size: int, runs: int) -> None:
    assert manner_beside(size) == Manner(window=runs * RUN, run=RUN)


async def test_blocks_that_are_wrong_come_from_another_source(
    case: Case, source: StorageSource
) -> None:
    case.endpoint.fault = lambda _method, _number: "flip"
    peer = LocalSource(case.packed)
    sources = Sources(peer)
    sources.add(source, MANNER)
    await case.fetch(sources)
    peer.close()


async def test_a_store_that_dies_in_the_middle_is_replaced(
    case: Case, source: StorageSource
) -> None:
    case.endpoint.fault = lambda _method, number: "cut" if number > 2 else None
    peer = LocalSource(case.packed)
    sources = Sources()
    sources.add(source, MANNER)
    fetching = asyncio.create_task(case.fetch(sources))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(fetching), 0.5)
    sources.add(peer)
    await fetching
    peer.close()


async def test_what_isnt_there_or_isnt_meant(case: Case, source: StorageSource) -> None:
    missing = StorageSource(case.ref.id, ["0" * 64], case.ask, patience=QUICK)
    with pytest.raises(NotFound, match="There is no content 000000000000… in the storage"):
        await missing.block(case.ref.id, 0, 0, 5)
    with pytest.raises(NotFound, match="no file 1"):
        await missing.block(case.ref.id, 1, 0, 5)
    missing.close()
    other = packages.ref(packages.package([]))
    with pytest.raises(NotFound, match="isn't asked for the package"):
        await source.listing(other)
    with pytest.raises(NotFound):
        await source.block(PackageId("0" * 64), 0, 0, 5)


async def test_an_object_that_is_replaced_by_the_same_content_goes_on(
    case: Case, source: StorageSource
) -> None:
    names = [entry.path for entry in case.packed.package.files]
    file, data = names.index("config.yaml"), (case.root / "source" / "config.yaml").read_bytes()
    assert await source.block(case.ref.id, file, 0, 100) == data
    key = case.key(case.packed.file_hashes["config.yaml"])
    case.endpoint.store.delete(key)
    assert case.endpoint.store.create(key, data)
    assert await source.block(case.ref.id, file, 0, 100) == data


async def test_closed_it_lets_go_of_who_waits(case: Case, source: StorageSource) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(_method: str, _number: int) -> str | None:
        reached.set()
        go_on.wait(10)
        return None

    case.endpoint.fault = wait
    asking = asyncio.create_task(source.block(case.ref.id, 0, 0, BLOCK))
    listing = asyncio.create_task(source.listing(case.ref))
    await asyncio.to_thread(reached.wait, 10)
    source.close()
    go_on.set()
    for task in (asking, listing):
        with pytest.raises(StorageUnreachable):
            await task
    with pytest.raises(StorageUnreachable, match="isn't read any more"):
        await source.block(case.ref.id, 0, 0, BLOCK)


async def test_closed_it_asks_for_no_more_links(case: Case) -> None:
    reached, go_on = threading.Event(), threading.Event()
    asked: list[Sequence[str]] = []

    def links(contents: Sequence[str]) -> list[SignedRequest]:
        asked.append(contents)
        reached.set()
        go_on.wait(10)
        raise StorageUnreachable(store="there", why="it is away")

    source = StorageSource(case.ref.id, [f"{n}" * 64 for n in range(4)], links, patience=QUICK)
    waiting = [asyncio.create_task(source.block(case.ref.id, n, 0, 5)) for n in range(4)]
    await asyncio.to_thread(reached.wait, 10)
    source.close()
    go_on.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [StorageUnreachable] * 4
    await asyncio.to_thread(source._pool.shutdown)
    assert len(asked) == 1


async def test_what_nobody_waits_for_isnt_read_on(case: Case, source: StorageSource) -> None:
    asked = [asyncio.create_task(source.block(case.ref.id, 0, block, BLOCK)) for block in range(2)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert await source.block(case.ref.id, 0, 2, BLOCK)


def test_links_are_asked_for_ahead_and_once() -> None:
    """And a question that fails is asked again as a whole."""
    asked: list[list[str]] = []
    away = [NotFound(message="away")]
    ends = [datetime.now(UTC) + timedelta(hours=1)]

    def links(contents: Sequence[str]) -> list[SignedRequest]:
        if away:
            raise away.pop()
        asked.append(list(contents))
        return [SignedRequest("GET", f"http://s/{each}", {}, ends[0]) for each in contents]

    contents = [str(n) for n in range(LINKS + 10)]
    contents[5] = contents[3]
    ahead = _Ahead(contents, links, Pauses(QUICK))
    with pytest.raises(NotFound):
        ahead.link(contents[0])
    assert [ahead.link(each).url for each in contents[:LINKS]] == [
        f"http://s/{each}" for each in contents[:LINKS]
    ]
    # The content that is there twice needs a second link, which is asked for alone.
    assert [len(each) for each in asked] == [LINKS - 1, 1]
    ahead.link(contents[100])
    assert asked.pop() == [contents[100]]
    assert ahead.link("listing").url == "http://s/listing"
    ends[0] = datetime.now(UTC) + timedelta(seconds=60)
    ahead.link(contents[LINKS])
    assert len(asked[-1]) == 10
    # A link that has waited until it is about to end is asked for anew.
    ahead.link(contents[LINKS + 1])
    assert asked[-1] == [contents[LINKS + 1]]
