"""A job's files in a real server's storage: once, verified, and on from where it stopped."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.storing import FORGOTTEN_S, Limits, bytes_there, store_files
from sleap_rtc.domain.packages import listing_of
from sleap_rtc.errors import NotFound, SourceChanged, StorageOff
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import NamedFile
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import MIN_PART, SignedRequest
from sleap_rtc.storage.remote import RemoteStore
from sleap_rtc.storage.service import Aborted, DownloadTold, UploadTold
from sleap_rtc.testing.server import running_server, server_settings

SIZE = 6_000_000
IN_PARTS = MIN_PART
"""Bytes of the largest parts, with which the label file goes in two of them."""


class Inputs:
    """A package of a label file, a configuration, and an empty file."""

    def __init__(self, folder: Path) -> None:
        contents = {"labels/a.slp": os.urandom(SIZE), "configs/0/c.yaml": b"x: 1\n", "empty": b""}
        self.places = {}
        for name, data in contents.items():
            self.places[name] = folder / name.replace("/", "-")
            self.places[name].write_bytes(data)
        self.packed = pack(self.places)
        self.files = [
            NamedFile(
                name=entry.path,
                size=entry.size,
                checksum=self.packed.file_hashes[entry.path],
                place=str(self.places[entry.path]),
            )
            for entry in self.packed.package.files
        ]


@pytest.fixture
def inputs(tmp_path):
    return Inputs(tmp_path)


@pytest.fixture
async def storage(lab):
    async with lab.owner.online():
        pass  # the server knows members from their visits
    with closing(RoomStorage(lab.owner.settings, lab.owner.entry)) as made:
        yield made


async def test_all_of_it_once(lab, inputs, storage, tmp_path):
    state, told = tmp_path / "state", []

    def store():
        return store_files(
            storage.open(),
            inputs.packed,
            inputs.files,
            state=state,
            on_progress=lambda name, progress: told.append((name, progress)),
        )

    def read(blake3: str, size: int) -> bytes:
        at = storage.open()
        reader = RangeReader(lambda: at.download_request(at.key(blake3)), name="it")
        with closing(reader):
            return reader.read(0, size)

    assert await asyncio.to_thread(bytes_there, storage.open(), inputs.files) == 0
    done = await asyncio.to_thread(store)
    assert (done.sent, done.there) == (SIZE + 5, 0)
    assert set(done.keys) == {"labels/a.slp", "configs/0/c.yaml"}
    assert told[-1][1].done == told[-1][1].total == SIZE + 5
    assert list(state.iterdir()) == []
    package = inputs.packed.package
    listing = listing_of(package.files)
    assert await asyncio.to_thread(read, package.id, len(listing)) == listing
    checksum = inputs.packed.file_hashes["labels/a.slp"]
    data = inputs.places["labels/a.slp"].read_bytes()
    assert await asyncio.to_thread(read, checksum, SIZE) == data

    assert await asyncio.to_thread(bytes_there, storage.open(), inputs.files) == SIZE + 5
    again = await asyncio.to_thread(store)
    assert (again.sent, again.there, again.keys) == (0, SIZE + 5, done.keys)


async def test_a_limit_and_a_stop(lab, inputs, storage, tmp_path):
    """Ended in the middle, it begins again where the store has it; slowly, it takes its time."""

    class Enough(Exception):
        pass

    def end(_name, progress):
        if progress.done > SIZE // 2:
            raise Enough

    def store(**more):
        return store_files(
            storage.open(), inputs.packed, inputs.files, state=tmp_path / "state", **more
        )

    with pytest.raises(Enough):
        await asyncio.to_thread(store, on_progress=end, limits=Limits(largest=IN_PARTS))
    assert len(list((tmp_path / "state").iterdir())) == 1
    began = time.monotonic()
    done = await asyncio.to_thread(store, limits=Limits(rate=10_000_000, largest=IN_PARTS))
    assert done.sent + done.there == SIZE + 5
    assert time.monotonic() - began > 0.01
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_file_that_is_another_one_by_now(lab, inputs, storage, tmp_path):
    inputs.places["labels/a.slp"].write_bytes(os.urandom(SIZE))

    def store():
        store_files(storage.open(), inputs.packed, inputs.files, state=tmp_path / "state")

    with pytest.raises(SourceChanged):
        await asyncio.to_thread(store)
    inputs.places["labels/a.slp"].unlink()
    with pytest.raises(NotFound, match="can't be read"):
        await asyncio.to_thread(store)


async def test_a_server_without_storage(tmp_path, inputs):
    settings = server_settings(tmp_path / "data", server_storage="off")
    async with running_server(settings) as server:
        from .conftest import Lab  # noqa: PLC0415 - its own server

        lab = Lab(tmp_path, server.address.url, server.info.setup_code)
        await lab.begin()
        storage = RoomStorage(lab.owner.settings, lab.owner.entry)
        with closing(storage), pytest.raises(StorageOff):
            await asyncio.to_thread(bytes_there, storage.open(), inputs.files)


def test_what_nobody_went_on_with_is_forgotten(tmp_path, inputs):
    old, new = (tmp_path / "state" / f"{n}.sleap-upload-state" for n in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    long_ago = time.time() - FORGOTTEN_S - 1
    os.utime(old, (long_ago, long_ago))

    class Nothing:
        def offer(self, _contents, *, replacing):
            raise NotFound(message="stop here")

        def key(self, blake3):
            return blake3

    with pytest.raises(NotFound):
        store_files(Nothing(), inputs.packed, inputs.files, state=tmp_path / "state")
    assert [path.name for path in (tmp_path / "state").iterdir()] == [new.name]


def test_what_goes_soon_is_uploaded_again():
    """A store in buckets removes by its own clock, whoever asks for what is there."""
    asked = []

    class Api:
        def ask(self, path, answer, request):
            asked.append(path)
            if answer is DownloadTold:
                now = datetime.now(UTC)
                link = SignedRequest(method="GET", url="http://s/x", headers={}, expires=now)
                return DownloadTold(key="k", size=5, etag="e", request=link, expires_in=60)
            if answer is UploadTold:
                return UploadTold(state="open", key="k", size=5, upload_id="a" * 32)
            assert request.upload_id == "a" * 32
            return Aborted()

    store = RemoteStore(Api(), "r" * 32, "uploads")
    assert store.head(store.key("b" * 64)) is None
    assert asked == ["/api/request-download", "/api/request-upload", "/api/abort-upload"]
    asked.clear()
    kept = RemoteStore(Api(), "r" * 32, "rooms")
    assert kept.head(kept.key("b" * 64)).size == 5
    assert asked == ["/api/request-download"]


async def test_many_small_files_need_few_questions(lab, storage, tmp_path, monkeypatch):
    """Two for hundreds of files, one of them there twice; the large one goes in parts."""
    folder = tmp_path / "many"
    folder.mkdir()
    places = {}
    for number in range(300):
        places[f"{number}.bin"] = path = folder / str(number)
        path.write_bytes(os.urandom(50) if number else b"the same")
    places["again.bin"] = places["0.bin"]
    places["large.slp"] = folder / "large"
    places["large.slp"].write_bytes(os.urandom(SIZE))
    packed = pack(places)
    files = [
        NamedFile(name=e.path, size=e.size, checksum=packed.file_hashes[e.path], place="")
        for e in packed.package.files
    ]
    store, asked = storage.open(), Counter()
    ask = store._api.ask

    def counted(path, *args, **more):
        asked[path] += 1
        return ask(path, *args, **more)

    monkeypatch.setattr(store._api, "ask", counted)

    def put():
        limits = Limits(largest=IN_PARTS)
        return store_files(store, packed, files, state=tmp_path / "state", limits=limits)

    done = await asyncio.to_thread(put)
    assert (done.sent, done.there) == (8 + 299 * 50 + SIZE, 8)
    assert len(done.keys) == 302
    # Two batches of files, and the listing.
    assert (asked["/api/offer-contents"], asked["/api/confirm-contents"]) == (3, 3)
    assert sum(asked.values()) < 20
    again = await asyncio.to_thread(put)
    assert (again.sent, again.there) == (0, done.sent + 8)
