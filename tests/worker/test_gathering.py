"""Bringing a job's inputs from storage, shared disks and peers, over real HTTP and real files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.domain.packages import BLOCK, listing_of, ref
from sleap_rtc.errors import (
    Damaged,
    LinkLost,
    NotFound,
    PathNotPermitted,
    ServerUnreachable,
    SourceChanged,
    StorageUnreachable,
)
from sleap_rtc.files.durable import place_directory
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import NamedFile, linked, shared, stored
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.testing.store_endpoint import StoreEndpoint
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource
from sleap_rtc.worker import dataset_source
from sleap_rtc.worker.dataset_source import Places
from sleap_rtc.worker.gathering import Gathering
from sleap_rtc.worker.shared import SharedFolders

LABELS, CONFIG, EMPTY = "labels/a.slp", "configs/0/c.yaml", "videos/empty"


class RoomStore:
    """A room's storage: a folder behind HTTP."""

    def __init__(self, endpoint: StoreEndpoint) -> None:
        self.endpoint = endpoint
        self.away: list[Exception] = []
        self.asked = 0
        self.can = True
        self.reports: list[tuple[str, str]] = []
        self.finds = "damaged"

    def open(self):
        return self

    def close(self) -> None:
        pass

    def key(self, blake3: str) -> str:
        return f"uploads/r/{blake3}"

    def put(self, blake3: str, data: bytes) -> None:
        assert self.endpoint.store.create(self.key(blake3), data)

    def report_damaged(self, blake3: str, etag: str) -> str:
        self.reports.append((blake3, etag))
        return self.finds

    def download_requests(self, keys):
        self.asked += 1
        if self.away:
            raise self.away.pop(0)
        return self.endpoint.store.download_requests(keys)


class Offered:
    """Peers, of whom one may offer the package."""

    def __init__(self) -> None:
        self.packed = None
        self.read = 0

    def has_source(self, _package) -> bool:
        return self.packed is not None

    @contextlib.contextmanager
    def sources(self, _package):
        if self.packed is None:
            yield Sources()
            return
        source = LocalSource(self.packed)
        plain = source.block

        async def counted(*asked):
            data = await plain(*asked)
            self.read += len(data)
            return data

        source.block = counted
        yield Sources(source)
        source.close()


class Case:
    """Inputs of a job, and a worker that wants them."""

    def __init__(self, folder: Path, endpoint: StoreEndpoint) -> None:
        self.folder = folder
        self.home = folder / "home"
        (self.home / "lab").mkdir(parents=True)
        self.contents = {LABELS: os.urandom(3 * BLOCK + 5), CONFIG: b"c: 1\n", EMPTY: b""}
        self.paths = {
            LABELS: self.home / "lab" / "a.slp",
            CONFIG: self.home / "c.yaml",
            EMPTY: self.home / "empty",
        }
        for name, path in self.paths.items():
            path.write_bytes(self.contents[name])
        self.packed = pack(self.paths)
        self.inputs = ref(self.packed.package)
        self.files = {
            entry.path: NamedFile(
                name=entry.path,
                size=entry.size,
                checksum=self.packed.file_hashes[entry.path],
                place=str(self.paths[entry.path]),
            )
            for entry in self.packed.package.files
        }
        self.store = RoomStore(endpoint)
        self.peers = Offered()
        self.cache = FileCache(folder / "cache", limit=10**9)
        self.permitted: list[Path] = []
        self.said: list[str] = []
        self.slept: list[float] = []
        self.told: list[int] = []
        self.arrived = threading.Event()
        self.now = 0.0
        self.number = 0

    def store_all(self) -> None:
        for name, data in self.contents.items():
            if data:
                self.store.put(self.files[name].checksum, data)
        self.store.put(self.inputs.id, listing_of(self.packed.package.files))

    def datasets(self, **ways):
        """How each file is named; by default all are in storage."""
        made = {
            "s3": lambda file: stored(file, self.store.key(file.checksum)),
            "local": shared,
            "webrtc": linked,
        }
        kinds = {LABELS: "labels", CONFIG: "config", EMPTY: "empty"}
        return tuple(made[ways.get(kinds[n], "s3")](f) for n, f in self.files.items())

    @property
    def places(self) -> Places:
        return Places(
            storage=self.store,
            folders=SharedFolders(self.permitted),
            cache=self.cache,
            cache_size=10**9,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(seconds, 1.0)

    async def bring(self, datasets, *, patience: float = 5.0) -> Path:
        self.number += 1
        place = self.folder / "datasets" / str(self.number)
        place.parent.mkdir(exist_ok=True)
        gathering = Gathering(
            self.places,
            self.peers,
            patience=patience,
            clock=lambda: self.now,
            sleep=self._sleep,
        )

        async def fetched(sources, patience, on_progress):
            return await fetch(
                self.inputs,
                sources=sources,
                destination="the place",
                incoming=self.folder / "incoming",
                on_progress=on_progress,
                patience=patience,
            )

        staged = await gathering.bring(
            self.inputs,
            datasets,
            fetched,
            on_progress=self._tell,
            say=self.said.append,
        )
        with staged:
            place_directory(staged.path, place)
        await gathering.keep(place, datasets)
        return place

    def _tell(self, progress: Progress) -> None:
        self.told.append(progress.done)
        if progress.done:
            self.arrived.set()

    def check(self, place: Path) -> None:
        for name, data in self.contents.items():
            assert (place / name).read_bytes() == data


@pytest.fixture
def case(tmp_path, monkeypatch):
    quick = Patience(attempts=2, base=0.001, cap=0.01)
    monkeypatch.setattr(dataset_source, "QUICKLY", quick)
    monkeypatch.setattr("sleap_rtc.worker.gathering.LOST_S", 0.05)
    with StoreEndpoint(tmp_path / "store") as endpoint:
        yield Case(tmp_path, endpoint)


async def test_from_storage_and_then_from_the_cache(case):
    case.store_all()
    case.check(await case.bring(case.datasets()))
    gets = len(case.store.endpoint.requests)
    assert gets == 3  # the listing and two files
    case.check(await case.bring(case.datasets()))
    # Only the listing is asked for: all files were fetched before.
    assert len(case.store.endpoint.requests) == gets + 1
    assert case.cache.size() == sum(map(len, case.contents.values()))


async def test_some_from_a_shared_disk_and_the_rest_from_a_peer(case):
    case.permitted = [case.home / "lab"]
    case.peers.packed = case.packed
    case.check(await case.bring(case.datasets(labels="local", config="webrtc", empty="webrtc")))
    assert case.peers.read == len(case.contents[CONFIG])


async def test_all_of_it_from_a_shared_disk(case):
    case.permitted = [case.home]
    case.check(await case.bring(case.datasets(labels="local", config="local", empty="local")))
    assert case.store.asked == 0


async def test_a_peer_that_has_a_part_and_is_away(case):
    case.store_all()
    with pytest.raises(LinkLost, match="whoever submitted"):
        await case.bring(case.datasets(config="webrtc"))
    case.peers.packed = case.packed
    case.check(await case.bring(case.datasets(config="webrtc")))
    assert case.peers.read == len(case.contents[CONFIG])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda case: case.paths[LABELS].write_bytes(b"short"), SourceChanged),
        (lambda case: case.paths[LABELS].write_bytes(os.urandom(3 * BLOCK + 5)), Damaged),
        (lambda case: case.paths[LABELS].unlink(), NotFound),
        (lambda case: case.permitted.clear(), PathNotPermitted),
    ],
)
async def test_a_shared_file_that_isnt_what_was_named(case, change, error):
    case.store_all()
    case.permitted = [case.home]
    change(case)
    with pytest.raises(error):
        await case.bring(case.datasets(labels="local"))
    assert case.slept == []


async def test_storage_that_fails_for_a_while_is_asked_again(case):
    case.store_all()
    case.store.away = [ServerUnreachable(url="http://lab", why="it restarts")] * 4
    case.check(await case.bring(case.datasets()))
    assert case.said == ["The server http://lab cannot be reached: it restarts. It is tried again."]
    assert case.slept


async def test_storage_that_fails_for_too_long_ends_it_and_what_came_stays(case):
    case.store_all()

    def fault(_method: str, number: int) -> str | None:
        """Only once the file before has arrived: what is under way is given up with the source."""
        if number <= 2:
            return None
        assert case.arrived.wait(30)
        return "500"

    case.store.endpoint.fault = fault
    with pytest.raises(StorageUnreachable):
        await case.bring(case.datasets(), patience=3.0)
    assert case.slept
    came = max(case.told)
    assert came > 0
    case.store.endpoint.fault = lambda _method, _number: None
    case.told.clear()
    case.check(await case.bring(case.datasets()))
    assert min(case.told) >= came


async def test_who_offers_it_waits_for_storage_only_for_a_while(case, monkeypatch):
    monkeypatch.setattr("sleap_rtc.worker.gathering.TAKEN_OVER_S", 2.0)
    case.store_all()
    case.store.endpoint.fault = lambda _method, _number: "500"
    case.peers.packed = case.packed
    with pytest.raises(StorageUnreachable):
        await case.bring(case.datasets(), patience=3600.0)
    assert 1 <= len(case.slept) <= 2


async def test_storage_that_has_it_no_more(case):
    with pytest.raises(NotFound):
        await case.bring(case.datasets())
    assert case.slept == []


async def test_a_bad_block_is_fetched_again(case):
    case.store_all()
    case.store.endpoint.fault = lambda _method, number: "flip" if number == 3 else None
    case.check(await case.bring(case.datasets()))


async def test_what_rotted_in_storage_is_reported_and_said(case):
    case.store_all()
    checksum = case.files[LABELS].checksum
    path = case.folder / "store" / "objects" / case.store.key(checksum)
    data = bytearray(path.read_bytes())
    data[BLOCK + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged) as failure:
        await case.bring(case.datasets())
    assert str(failure.value) == (
        f"{LABELS} in the room's storage is damaged: it isn't any more what was stored there."
    )
    assert failure.value.hint_text.startswith("Submit the job again")
    etag = case.store.endpoint.store.head(case.store.key(checksum)).etag
    assert case.store.reports == [(checksum, etag)]
    assert case.slept == []
    # What the server finds is what is said.
    case.store.finds = "good"
    with pytest.raises(Damaged, match="wrong 3 times, and what the room's storage has is right"):
        await case.bring(case.datasets())


async def test_a_rotten_listing_is_reported(case):
    case.store_all()
    path = case.folder / "store" / "objects" / case.store.key(case.inputs.id)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match="listing in the room's storage is damaged"):
        await case.bring(case.datasets())
    assert [blake3 for blake3, _ in case.store.reports] == [case.inputs.id]


async def test_what_is_kept_and_rotten_is_fetched_anew(case):
    case.store_all()
    await case.bring(case.datasets())
    checksum = case.files[LABELS].checksum
    with case.cache.use(checksum, len(case.contents[LABELS]), None) as path:
        data = bytearray(path.read_bytes())
        data[BLOCK + 7] ^= 1
        path.write_bytes(data)
    case.check(await case.bring(case.datasets()))
    with case.cache.use(checksum, len(case.contents[LABELS]), None) as path:
        assert path.read_bytes() == case.contents[LABELS]


async def test_a_file_named_wrongly_is_kept_for_nobody(case):
    case.store_all()
    wrong = [
        msgspec.structs.replace(each, checksum="e" * 64) if each.name == CONFIG else each
        for each in case.datasets()
    ]
    place = case.folder / "datasets" / "by-hand"
    for name, data in case.contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    await Gathering(case.places, case.peers, patience=1).keep(place, wrong)
    assert not case.cache.has("e" * 64, len(case.contents[CONFIG]))
    assert case.cache.has(case.files[LABELS].checksum, len(case.contents[LABELS]))


async def test_ended_in_the_middle_it_goes_on(case):
    case.store_all()
    blocked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fault(_method, number):
        if number == 3:
            loop.call_soon_threadsafe(blocked.set)
            return "500"
        return None

    case.store.endpoint.fault = fault
    bringing = asyncio.create_task(case.bring(case.datasets()))
    await blocked.wait()
    bringing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bringing
    case.store.endpoint.fault = lambda _method, _number: None
    case.check(await case.bring(case.datasets()))


def test_whether_it_helps(case):
    gathering = Gathering(case.places, case.peers, patience=1)
    assert gathering.helps(case.datasets())
    assert not gathering.helps(case.datasets(labels="webrtc", config="webrtc", empty="webrtc"))
    assert not gathering.helps(())
