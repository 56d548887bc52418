"""Fetching from storage as a worker does: kept where it is read, whatever store and disk do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import BLOCK, listing_of
from sleap_rtc.errors import Damaged, DataError, OutOfSpace, ProtocolError, StorageRefused
from sleap_rtc.files import buffers
from sleap_rtc.files.buffers import Content
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.files.packing import pack
from sleap_rtc.files.partial import folder_of
from sleap_rtc.storage.objects import SignedRequest
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.testing.programs import running
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.transports.stored import StorageSource
from sleap_rtc.transports.throttle import Throttle

SIZES = {"best.ckpt": 11 * BLOCK + 5, "other.ckpt": 2 * BLOCK, "small": 9}
QUICK = Patience(attempts=3, base=0.0, cap=0.0)
MANNER = Manner(window=8 * BLOCK, run=4 * BLOCK)


class FourAtOnce(StorageSource):
    """Reads four blocks at a time, so that a few of them are several runs."""

    def run(self, file: int) -> int:
        return 4


class Case:
    """A package whose files are in a store, and where it is fetched to."""

    def __init__(self, root: Path, endpoint: StoreEndpoint) -> None:
        self.root, self.endpoint = root, endpoint
        (root / "source").mkdir()
        for name, size in SIZES.items():
            (root / "source" / name).write_bytes(random.Random(name).randbytes(size))
        self.packed = pack({name: root / "source" / name for name in SIZES})
        self.ref = packages.ref(self.packed.package)
        self.incoming = root / "incoming"
        self.contents = [self.packed.file_hashes[e.path] for e in self.packed.package.files]
        for name, blake3 in self.packed.file_hashes.items():
            endpoint.store.create(blake3, (root / "source" / name).read_bytes())
        endpoint.store.create(self.ref.id, listing_of(self.packed.package.files))

    def links(self, contents: Sequence[str]) -> Sequence[SignedRequest]:
        return self.endpoint.store.download_requests(contents)

    def fails(self, *faults: str | None) -> None:
        """Have the first requests from now on go wrong."""
        self.endpoint.requests.clear()
        left = iter(faults)
        self.endpoint.fault = lambda _method, _count: next(left, None)

    @property
    def asked(self) -> int:
        return len(self.endpoint.requests)

    async def fetch(
        self, sources: Sources | None = None, *, throttle: Throttle | None = None
    ) -> None:
        self.source = source = FourAtOnce(self.ref.id, self.contents, self.links, patience=QUICK)
        sources = sources or Sources()
        sources.add(source, MANNER)
        try:
            staged = await fetch(
                self.ref,
                sources=sources,
                destination="there",
                incoming=self.incoming,
                throttle=throttle,
                patience=0.01,
            )
        finally:
            source.close()
        with staged:
            for name in SIZES:
                found = (staged.path / name).read_bytes()
                assert found == (self.root / "source" / name).read_bytes()
            staged.discard()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with StoreEndpoint(tmp_path / "store") as endpoint:
        yield Case(tmp_path, endpoint)


async def test_neighbours_come_in_one_request(case: Case) -> None:
    case.fails()
    await case.fetch()
    # The listing, blocks 0 to 3, 4 to 7 and 8 to 11, both blocks of the other one, the small one.
    assert case.asked == 6


@pytest.mark.parametrize("fault", ["500", "503", "403", "cut"])
async def test_what_fails_now_and_then_is_asked_again(case: Case, fault: str) -> None:
    case.fails(fault, None, fault, None, None, fault)
    await case.fetch()
    assert case.asked == 9


async def test_what_breaks_goes_on_behind_what_came(case: Case) -> None:
    case.fails(None, "half", "half", "half")
    with counted_writes() as writes:
        await case.fetch()
    assert writes.call_count == 12 + 2


async def test_a_bad_block_is_fetched_again_alone(case: Case) -> None:
    case.fails(None, "flip", None, "flip")
    await case.fetch()
    # It goes first, and so a run behind it may be a block shorter.
    assert case.asked in (8, 9)


async def test_a_store_that_lies_is_not_believed(case: Case) -> None:
    case.endpoint.fault = lambda _method, count: "flip" if count > 1 else None
    with pytest.raises(Damaged, match="was wrong 3 times"):
        await case.fetch()


async def test_a_listing_that_is_another_is_not_believed(case: Case) -> None:
    case.fails("flip")
    with pytest.raises(DataError):
        await case.fetch()


async def test_what_keeps_failing_ends_and_what_is_here_stays(case: Case) -> None:
    case.endpoint.fault = lambda _method, count: "403" if count > 3 else None
    with pytest.raises(StorageRefused):
        await case.fetch()
    here = blocks_here(case)
    assert here >= 4
    case.fails()
    with counted_writes() as writes:
        await case.fetch()
    assert writes.call_count + here == 12 + 2


async def test_what_is_here_and_wrong_is_fetched_again(case: Case) -> None:
    case.endpoint.fault = lambda _method, count: "403" if count > 3 else None
    with pytest.raises(StorageRefused):
        await case.fetch()
    best = folder_of(case.incoming, case.ref.id, "there") / "files" / "best.ckpt"
    with best.open("r+b") as file:
        file.write(b"worse")
    case.fails()
    await case.fetch()


async def test_an_object_that_becomes_another_is_noticed(case: Case) -> None:
    best = case.packed.file_hashes["best.ckpt"]

    def put(data: bytes) -> None:
        # At once, as stores do it: whoever reads meanwhile finds the one or the other.
        write_replacing(case.root / "store" / "objects" / best, data)

    def fault(_method: str, count: int) -> None:
        if count == 3:
            put(os.urandom(SIZES["best.ckpt"]))

    case.endpoint.fault = fault
    with pytest.raises(Damaged):
        await case.fetch()
    case.fails()
    put((case.root / "source" / "best.ckpt").read_bytes())
    await case.fetch()


async def test_a_disk_that_fills_in_the_middle_keeps_what_there_is(case: Case) -> None:
    real, count, lock = os.pwrite, 0, threading.Lock()

    def full(fd: int, data: bytes, at: int) -> int:
        nonlocal count
        with lock:
            count += 1
            if count > 20:
                raise OSError(28, "No space left on device")
        return real(fd, data, at)

    with mock.patch("os.pwrite", full), pytest.raises(OutOfSpace):
        await case.fetch()
    assert 2 <= blocks_here(case) < 14
    case.fails()
    await case.fetch()


async def test_a_limit_has_each_block_wait_for_its_turn(case: Case) -> None:
    taken: list[int] = []

    class Counting(Throttle):
        async def take(self, size: int) -> None:
            taken.append(size)

    case.fails()
    await case.fetch(throttle=Counting(1e9))
    assert sorted(taken) == [5, 9, *[BLOCK] * 13]
    assert case.asked == 1 + 12 + 2 + 1


async def test_what_comes_when_another_has_brought_all_of_it_isn_t_written(case: Case) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(_method: str, count: int) -> None:
        if count > 1:
            reached.set()
            go_on.wait(10)

    class Waiting(LocalSource):
        async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
            await asyncio.to_thread(reached.wait, 10)
            return await super().block(package, file, block, size)

    case.endpoint.fault = wait
    peer = Waiting(case.packed)
    with counted_writes() as writes:
        await case.fetch(Sources(peer))
        go_on.set()
        await asyncio.to_thread(case.source._pool.shutdown)
        assert writes.call_count == 12 + 2
    peer.close()


async def test_cancelled_it_waits_for_the_block_that_is_being_written(case: Case) -> None:
    reached, go_on = threading.Event(), threading.Event()
    real = buffers.write_and_compare

    def slow(fd: int, data: Content, offset: int) -> bool:
        reached.set()
        go_on.wait(10)
        return real(fd, data, offset)

    with mock.patch("sleap_rtc.files.buffers.write_and_compare", slow):
        fetching = asyncio.create_task(case.fetch())
        await asyncio.to_thread(reached.wait, 10)
        fetching.cancel()
        await asyncio.wait([fetching], timeout=0.05)
        assert not fetching.done()
        go_on.set()
        await asyncio.wait([fetching])
    assert fetching.cancelled()
    assert 1 <= blocks_here(case) <= 2
    await case.fetch()


async def test_a_source_that_gives_less_than_it_was_asked_for_isnt_used(case: Case) -> None:
    async def nothing(*_: object) -> None: ...

    with mock.patch.object(FourAtOnce, "pour", nothing), pytest.raises(ProtocolError):
        await case.fetch()


# ── in a process of its own ──────────────────────────────────────────────────

SCRIPT = """
import asyncio, signal, sys
from pathlib import Path
import msgspec
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.stored import StorageSource

root, url, ref, *contents = sys.argv[1:]
ref = msgspec.json.decode(ref, type=PackageRef)
store = FolderStore(Path(root) / "store", base_url=url)
incoming = Path(root) / "incoming"

class FourAtOnce(StorageSource):
    def run(self, file):
        return 4

async def main():
    source, sources = FourAtOnce(ref.id, contents, store.download_requests), Sources()
    sources.add(source, Manner(window=8 << 20, run=4 << 20))
    try:
        staged = await fetch(ref, sources=sources, destination="there", incoming=incoming)
    finally:
        source.close()
    with staged:
        (staged.path.parent / "journal").rename(Path(root) / "journal")
        staged.path.rename(Path(root) / "placed")

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("ended")
"""


def command(case: Case) -> list[str]:
    url = f"http://127.0.0.1:{case.endpoint.port}/blobs"
    ref = msgspec.json.encode(case.ref).decode()
    return [sys.executable, "-c", SCRIPT, str(case.root), url, ref, *case.contents]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_ends_in_the_middle_is_taken_up(case: Case, how: signal.Signals) -> None:
    """And who gives up needn't wait for a store that has fallen silent."""
    reached, go_on = threading.Event(), threading.Event()

    def stall(_method: str, count: int) -> None:
        if count > 3:
            reached.set()
            go_on.wait(30)

    case.endpoint.fault = stall
    with running(command(case), stdout=subprocess.PIPE) as process:
        assert reached.wait(30)
        process.send_signal(how)
        said, _ = process.communicate(timeout=20)
    go_on.set()
    assert (process.returncode, said) == ((0, "ended\n") if how == signal.SIGINT else (-how, ""))
    here = blocks_here(case)
    assert here >= 4
    case.fails()
    subprocess.run(command(case), check=True)
    for name in SIZES:
        assert (case.root / "placed" / name).read_bytes() == (
            case.root / "source" / name
        ).read_bytes()
    # Nothing was written twice.
    assert (case.root / "journal").read_bytes().count(b" w ") == 12 + 2 + 1


def blocks_here(case: Case) -> int:
    folder = folder_of(case.incoming, case.ref.id, "there")
    return (folder / "journal").read_bytes().count(b" w ")


@contextlib.contextmanager
def counted_writes() -> Iterator[mock.Mock]:
    """Counts the blocks of large files that are written."""
    real = buffers.write_and_compare
    with mock.patch("sleap_rtc.files.buffers.write_and_compare", wraps=real) as writes:
        yield writes
