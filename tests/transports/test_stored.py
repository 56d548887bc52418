"""Blocks from a real store behind HTTP, which misbehaves when told to."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, listing_of
from sleap_rtc.errors import Damaged, NotFound, StorageUnreachable
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.packing import Packed, pack
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience, Pauses, Stopped
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.stored import LINKS, LONGEST, RUN, StorageSource, _Ahead, manner

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

    def fault_from(self, first: int, fault: str) -> None:
        """Have all requests go wrong from that one on."""
        self.endpoint.fault = lambda _method, number: fault if number >= first else None

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
    sources.add(source, manner(case.ref.size))
    await case.fetch(sources)
    # The listing, the small file, and 21 blocks in as few reads as there can be.
    assert case.reads == 2 + -(-21 * BLOCK // RUN)
    # One question for the listing, and one for everything else.
    assert sorted(len(asked) for asked in case.links) == [1, 3]


async def test_neighbours_are_poured_in_one_read(case: Case, source: StorageSource) -> None:
    names = [entry.path for entry in case.packed.package.files]
    file, data = names.index("best.ckpt"), (case.root / "source" / "best.ckpt").read_bytes()
    came: list[tuple[int, bytes]] = []

    def keep(number: int, content: Content) -> bool:
        came.append((number, bytes(content)))
        return len(came) != 6

    assert (source.run(file), source.way) == (RUN // BLOCK, "s3")
    await source.pour(case.ref.id, file, 18, [BLOCK, BLOCK, 17], keep)
    assert came == [(n, data[(18 + n) * BLOCK : (19 + n) * BLOCK]) for n in range(3)]
    assert case.reads == 1
    # What isn't wanted any more isn't read on.
    await source.pour(case.ref.id, file, 0, [BLOCK] * 8, keep)
    assert [number for number, _ in came[3:]] == [0, 1, 2]
    with pytest.raises(NotFound, match="no file 3"):
        await source.pour(case.ref.id, 3, 0, [BLOCK], keep)


async def test_single_blocks_come_one_by_one(case: Case, source: StorageSource) -> None:
    file = [entry.path for entry in case.packed.package.files].index("best.ckpt")
    data = (case.root / "source" / "best.ckpt").read_bytes()
    asked = [3, 9, 20, 3]
    found = await asyncio.gather(
        *(source.block(case.ref.id, file, n, min(BLOCK, len(data) - n * BLOCK)) for n in asked)
    )
    assert found == [data[n * BLOCK : (n + 1) * BLOCK] for n in asked]


async def test_a_run_goes_on_behind_what_has_come_when_the_object_is_replaced(
    case: Case, source: StorageSource
) -> None:
    file = [entry.path for entry in case.packed.package.files].index("best.ckpt")
    data = (case.root / "source" / "best.ckpt").read_bytes()
    key = case.key(case.packed.file_hashes["best.ckpt"])
    came: list[int] = []

    def fault(_method: str, _number: int) -> str | None:
        if case.reads == 2:  # of which the first one broke: now it is there under another mark
            case.endpoint.store.delete(key)
            assert case.endpoint.store.create(key, data)
        return "half" if case.reads == 1 else None

    def keep(number: int, content: Content) -> bool:
        came.append(number)
        return bytes(content) == data[number * BLOCK : (number + 1) * BLOCK]

    case.endpoint.fault = fault
    await source.pour(case.ref.id, file, 0, [BLOCK] * 8, keep)
    assert came == [*range(8)]
    assert case.reads == 3


async def test_storage_and_a_peer_share_one_download(case: Case, source: StorageSource) -> None:
    peer = LocalSource(case.packed)
    sources = Sources()
    sources.add(source, manner(case.ref.size, beside=True))
    sources.add(peer)
    await case.fetch(sources)
    assert case.reads
    peer.close()


@pytest.mark.parametrize(
    ("size", "run", "beside"),
    [
        (0, RUN, 1),
        (60 * BLOCK, RUN, 1),
        (70 * BLOCK, RUN, 2),
        (24 * LONGEST // 2 - 1, RUN, 6),
        (24 * LONGEST // 2, LONGEST // 2, 6),
        (2**40, LONGEST, 6),
    ],
)
def test_the_larger_a_package_the_longer_are_reads(size: int, run: int, beside: int) -> None:
    """And beside others it doesn't take all of a small one."""
    assert manner(size) == Manner(window=6 * run, run=run)
    assert manner(size, beside=True) == Manner(window=beside * run, run=run)
    source = StorageSource(PackageId("0" * 64), [], lambda _: [], size=size)
    assert source.run(0) == run // BLOCK
    source.close()


async def test_blocks_that_are_wrong_come_from_another_source(
    case: Case, source: StorageSource
) -> None:
    case.endpoint.fault = lambda _method, _number: "flip"
    peer = LocalSource(case.packed)
    sources = Sources(peer)
    sources.add(source, manner(case.ref.size))
    await case.fetch(sources)
    peer.close()


async def test_a_store_that_dies_in_the_middle_is_replaced(
    case: Case, source: StorageSource
) -> None:
    case.endpoint.fault = lambda _method, number: "cut" if number > 2 else None
    peer = LocalSource(case.packed)
    sources = Sources()
    sources.add(source, manner(case.ref.size))
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


@pytest.mark.parametrize("replaced", [False, True])
async def test_what_the_store_can_t_read_any_more_is_blamed(
    case: Case, source: StorageSource, replaced: bool
) -> None:
    content = case.packed.file_hashes["config.yaml"]
    file = [entry.path for entry in case.packed.package.files].index("config.yaml")
    if replaced:
        await source.block(case.ref.id, file, 0, SIZES["config.yaml"])
        case.endpoint.store.delete(case.key(content))
        case.put(case.root / "source" / "config.yaml", content)
        # The first question finds another object there, and the second one what can't be read.
        case.fault_from(len(case.endpoint.requests) + 2, "422")
    else:
        case.fault_from(1, "422")
    with pytest.raises(Damaged):
        await source.block(case.ref.id, file, 0, SIZES["config.yaml"])
    assert [*source.damaged] == [content]


async def test_a_listing_that_the_store_can_t_read_is_blamed(
    case: Case, source: StorageSource
) -> None:
    case.fault_from(1, "422")
    with pytest.raises(Damaged):
        await source.listing(case.ref)
    assert source.damaged == {case.ref.id: ""}


async def test_closed_it_lets_go_of_who_waits(case: Case, source: StorageSource) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(_method: str, _number: int) -> str | None:
        reached.set()
        go_on.wait(60)
        return None

    case.endpoint.fault = wait
    asking = asyncio.create_task(source.block(case.ref.id, 0, 0, BLOCK))
    listing = asyncio.create_task(source.listing(case.ref))
    await asyncio.to_thread(reached.wait, 60)
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
        go_on.wait(60)
        raise StorageUnreachable(store="there", why="it is away")

    source = StorageSource(case.ref.id, [f"{n}" * 64 for n in range(4)], links, patience=QUICK)
    waiting = [asyncio.create_task(source.block(case.ref.id, n, 0, 5)) for n in range(4)]
    await asyncio.to_thread(reached.wait, 60)
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
    later: list[Callable[[], None]] = []
    ahead = _Ahead(contents, links, Pauses(QUICK), aside=later.append)
    with pytest.raises(NotFound):
        ahead.link(contents[0])
    assert [ahead.link(each).url for each in contents[:LINKS]] == [
        f"http://s/{each}" for each in contents[:LINKS]
    ]
    # The content that is there twice needs a second link, which is asked for alone.
    assert [len(each) for each in asked] == [LINKS - 1, 1]
    assert len(later) == 1  # what is told to ask ahead needn't do so
    ahead.link(contents[100])
    assert asked.pop() == [contents[100]]
    assert ahead.link("listing").url == "http://s/listing"
    ends[0] = datetime.now(UTC) + timedelta(seconds=60)
    ahead.link(contents[LINKS])
    assert len(asked[-1]) == 10
    # A link that has waited until it is about to end is asked for anew.
    ahead.link(contents[LINKS + 1])
    assert asked[-1] == [contents[LINKS + 1]]


def test_links_are_asked_for_while_half_of_them_are_left() -> None:
    asked: list[list[str]] = []
    away = False

    def links(contents: Sequence[str]) -> list[SignedRequest]:
        if away:
            raise StorageUnreachable(store="there", why="it is away")
        asked.append(list(contents))
        return [SignedRequest("GET", each, {}, ends) for each in contents]

    ends = datetime.now(UTC) + timedelta(hours=1)
    contents = [str(n) for n in range(3 * LINKS)]
    later: list[Callable[[], None]] = []
    pauses = Pauses(QUICK)
    ahead = _Ahead(contents, links, pauses, aside=later.append)
    for each in contents[: LINKS // 2]:
        ahead.link(each)
    assert later == []
    ahead.link(contents[LINKS // 2])
    ahead.link(contents[LINKS // 2 + 1])
    later.pop()()
    assert asked == [contents[:LINKS], contents[LINKS : 2 * LINKS]]
    # One that fails is asked again by who needs it.
    ahead.link(contents[2 * LINKS - 1])
    away = True
    later.pop()()
    away = False
    ahead.link(contents[2 * LINKS + 1])
    assert asked[2:] == [[contents[2 * LINKS + 1], contents[2 * LINKS], *contents[2 * LINKS + 2 :]]]
    assert later == []
    # Where somebody was quicker, or nothing more is to be done, it isn't asked.
    for stops in (False, True):
        ahead = _Ahead(contents, links, pauses, aside=later.append)
        for each in contents[LINKS - 2 : LINKS]:
            ahead.link(each)
        if stops:
            pauses.stop()
        else:
            ahead.link(contents[LINKS])
        asked.clear()
        later.pop(0)()
        assert asked == []
    with pytest.raises(Stopped):
        ahead.link(contents[0])


def test_readers_that_begin_far_from_each_other_leave_nothing_to_be_asked_for_alone() -> None:
    asked: list[list[str]] = []

    def links(contents: Sequence[str]) -> list[SignedRequest]:
        asked.append(list(contents))
        return [SignedRequest("GET", each, {}, ends) for each in contents]

    ends = datetime.now(UTC) + timedelta(hours=1)
    contents = [str(n) for n in range(5 * LINKS)]
    ahead = _Ahead(contents, links, Pauses(QUICK), aside=lambda work: work())
    step = LINKS // 4
    for begin in (13, 7, 0, 19, 3):
        assert ahead.link(contents[begin * step]).url == contents[begin * step]
    for place, each in enumerate(contents):
        if place not in {n * step for n in (13, 7, 0, 19, 3)}:
            assert ahead.link(each).url == each
    assert sorted(each for some in asked for each in some) == sorted(contents)
    assert len(asked) <= 8


def test_who_needs_what_another_one_asks_for_waits_for_that_alone() -> None:
    asked: list[list[str]] = []
    reached, go_on = threading.Event(), threading.Event()

    def links(contents: Sequence[str]) -> list[SignedRequest]:
        asked.append(list(contents))
        if contents[0] == "0":
            reached.set()
            go_on.wait(60)
        return [SignedRequest("GET", each, {}, ends) for each in contents]

    ends = datetime.now(UTC) + timedelta(hours=1)
    contents = [str(n) for n in range(2 * LINKS)]
    ahead = _Ahead(contents, links, Pauses(QUICK), aside=lambda _: None)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ahead.link, "0")
        assert reached.wait(60)
        second = pool.submit(ahead.link, "1")
        # Nobody has asked for the others yet: those behind what is asked for, too.
        assert ahead.link(contents[LINKS + 3]).url == contents[LINKS + 3]
        assert sorted(asked[1], key=int) == contents[LINKS:]
        assert not first.done()
        assert not second.done()
        go_on.set()
        assert [first.result().url, second.result().url] == ["0", "1"]
    assert len(asked) == 2


async def test_small_files_are_read_by_the_dozen(case: Case, source: StorageSource) -> None:
    """And what of them is the end of a large one is read with the rest of that one."""
    names = [entry.path for entry in case.packed.package.files]
    best, config = names.index("best.ckpt"), names.index("config.yaml")
    found, way = await source.several(case.ref.id, [(best, 20), (config, 0)], [17, 100])
    assert way == "s3"
    data = [(case.root / "source" / name).read_bytes() for name in ("best.ckpt", "config.yaml")]
    assert found == data[0][20 * BLOCK :] + data[1]
    with pytest.raises(NotFound, match="no file 3"):
        await source.several(case.ref.id, [(config, 0), (3, 0)], [100, 1])


async def test_several_that_nobody_waits_for_are_read_no_further(
    case: Case, source: StorageSource
) -> None:
    file = [entry.path for entry in case.packed.package.files].index("config.yaml")
    reached, go_on = threading.Event(), threading.Event()

    def wait(_method: str, _number: int) -> None:
        reached.set()
        go_on.wait(60)

    case.endpoint.fault = wait
    asking = asyncio.create_task(source.several(case.ref.id, [(file, 0)] * 50, [100] * 50))
    await asyncio.to_thread(reached.wait, 60)
    asking.cancel()
    await asyncio.wait([asking])
    go_on.set()
    source.close()
    await asyncio.to_thread(source._pool.shutdown)
    assert case.reads == 1


async def test_closed_nothing_is_left_open(case: Case) -> None:
    """Neither threads nor connections, whatever was under way or waited for its turn."""
    before = {thread for thread in threading.enumerate() if thread.name.startswith("storage")}
    source = case.source()
    file = [entry.path for entry in case.packed.package.files].index("config.yaml")
    reached, go_on = threading.Barrier(17), threading.Event()

    def wait(_method: str, _number: int) -> None:
        reached.wait(60)
        go_on.wait(60)

    await source.block(case.ref.id, file, 0, 100)
    case.endpoint.fault = wait
    asking = [
        asyncio.create_task(source.several(case.ref.id, [(file, 0)], [100])) for _ in range(20)
    ]
    await asyncio.to_thread(reached.wait, 60)
    source.close()
    go_on.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in found] == [StorageUnreachable] * 20
    await asyncio.to_thread(source._pool.shutdown)
    assert not source._connections._idle
    left = {thread for thread in threading.enumerate() if thread.name.startswith("storage")}
    assert left <= before
    with pytest.raises(StorageUnreachable, match="isn't read any more"):
        await source.several(case.ref.id, [(file, 0)], [100])
