"""What rotted in a server's storage, over HTTP: reported, read by the server, and sent anew."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.client.storing import store_files
from sleap_rtc.domain.ids import RoomId
from sleap_rtc.domain.packages import BLOCK, ref
from sleap_rtc.errors import Damaged, SourceChanged, StorageOff, TooManyRequests
from sleap_rtc.files.packing import pack
from sleap_rtc.jobs.datasets import NamedFile
from sleap_rtc.server import api
from sleap_rtc.storage.objects import Content
from sleap_rtc.storage.remote import RemoteStore
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.stored import StorageSource

from .conftest import Device, Place

LARGE, SMALL = 17 * BLOCK, BLOCK + 5


def store_of(device: Device) -> RemoteStore:
    return RemoteStore(device.api, RoomId(device.room), "rooms")


class Case:
    """A package of a large and a small file, stored in a room."""

    def __init__(self, folder: Path, device: Device) -> None:
        self.folder, self.store = folder, store_of(device)
        paths = {"large": folder / "large", "small": folder / "small"}
        for path, size in zip(paths.values(), (LARGE, SMALL), strict=True):
            path.write_bytes(os.urandom(size))
        self.packed = pack(paths)
        hashes = self.packed.file_hashes
        self.files = [
            NamedFile(name=entry.path, size=entry.size, checksum=hashes[entry.path], place="")
            for entry in self.packed.package.files
        ]

    def put(self) -> int:
        """Store all of it; how much was sent."""
        return store_files(self.store, self.packed, self.files, state=self.folder / "state").sent

    async def fetch(self) -> dict[str, str]:
        """Fetch it; what storage gave wrong is returned."""
        source = StorageSource(
            self.packed.package.id,
            [file.checksum for file in self.files],
            lambda contents: self.store.download_requests([*map(self.store.key, contents)]),
        )
        try:
            staged = await fetch(
                ref(self.packed.package),
                sources=Sources(source),
                destination="there",
                incoming=self.folder / "incoming",
            )
            with staged:
                staged.discard()
        except (Damaged, SourceChanged):
            if not source.damaged:
                raise
        finally:
            source.close()
        return source.damaged


def told_and_mended(case: Case, rot: Callable[[str], None]) -> None:
    """Both files rot; the same command that stored them mends them."""
    assert case.put() == LARGE + SMALL
    assert case.put() == 0
    assert asyncio.run(case.fetch()) == {}
    for file in case.files:
        rot(case.store.key(file.checksum))
        damaged = asyncio.run(case.fetch())
        assert [*damaged] == [file.checksum]
        found = [case.store.report_damaged(blake3, etag) for blake3, etag in damaged.items()]
        assert found == ["damaged"]
        assert case.store.head(case.store.key(file.checksum)) is None
        assert case.put() == file.size
        assert asyncio.run(case.fetch()) == {}
        assert case.put() == 0


@pytest.mark.parametrize("how", ["one bit", "cut", "emptied"])
def test_in_the_servers_folder(how: str, place: Place, tmp_path: Path) -> None:
    def rot(key: str) -> None:
        path = place.info.data_dir / "storage" / "objects" / key
        before = path.stat()
        with path.open("r+b") as file:
            if how == "one bit":
                data = file.read(1)
                file.seek(0)
                file.write(bytes([data[0] ^ 1]))
            else:
                file.truncate(before.st_size - 9 if how == "cut" else 0)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    told_and_mended(Case(tmp_path, place.owner), rot)


def test_who_may_report_and_how_often(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "REPORT_BURST", 3.0)
    place = new_place()
    data = b"something"
    place.owner.upload(data)
    digest = blake3(data).hexdigest()
    device = place.join(1, "viewer")
    with closing(device.client):
        viewer = store_of(device)
        assert viewer.report_damaged(digest) == "good"
        assert viewer.report_damaged("0" * 64) == "gone"
        assert viewer.report_damaged(digest) == "good"
        with pytest.raises(TooManyRequests):
            viewer.report_damaged(digest)
    # Everybody has a number of their own.
    assert store_of(place.owner).report_damaged(digest) == "good"


def test_nobody_waits_until_something_large_is_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, going_on = threading.Event(), threading.Event()

    def slowly(*_: Any, **__: Any) -> str:
        reading.set()
        assert going_on.wait(20)
        return "0" * 64

    monkeypatch.setattr("sleap_rtc.server.storing.digest_in_folder", slowly)
    monkeypatch.setattr(api, "VERDICT_WITHIN", 0.05)
    data = b"something large"
    place.owner.upload(data)
    store = store_of(place.owner)
    digest = blake3(data).hexdigest()
    assert store.report_damaged(digest) == "open"
    assert reading.wait(20)
    # Who stores something else isn't held up by that.
    assert place.owner.upload(b"something else").size == 14
    going_on.set()
    monkeypatch.setattr(api, "VERDICT_WITHIN", 20.0)
    assert store.report_damaged(digest) == "damaged"


def test_without_storage(new_place: Callable[..., Place]) -> None:
    place = new_place(server_storage="off")
    with pytest.raises(StorageOff):
        store_of(place.owner).report_damaged("0" * 64)


@pytest.mark.slow
def test_in_buckets(with_buckets: tuple[Place, SeaweedServer], tmp_path: Path) -> None:
    place, seaweed = with_buckets
    bucket = seaweed.store("sleap-rtc-rooms")
    folder = tmp_path / "files"
    folder.mkdir()

    def change(key: str) -> None:
        """Somebody with the keys of the bucket puts something else there."""
        found = bucket.read(key, limit=LARGE)
        assert found is not None
        other = bytes([found[0] ^ 1]) + found[1:]
        content = Content(key=key, size=len(other), sha256=hashlib.sha256(other).digest())
        request = bucket.content_request(content, replacing=True)
        assert bucket._connections.send(request, other).ok

    told_and_mended(Case(folder, place.owner), change)
