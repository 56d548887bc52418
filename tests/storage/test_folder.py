"""A folder as a store: what every store does, and what only disks do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from sleap_rtc.errors import (
    AlreadyExists,
    Busy,
    Damaged,
    DataError,
    NotPermitted,
    OutOfSpace,
    PartsMissing,
    PathNotPermitted,
    StorageRefused,
    UnknownUpload,
)
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import MIN_PART, ObjectStore, Part, Upload
from sleap_rtc.storage.tickets import Ticket
from sleap_rtc.testing.store_conformance import CHECKS, CONTENT, forged, part_of
from sleap_rtc.testing.store_endpoint import StoreEndpoint


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_folder_does_what_every_store_does(
    check: Callable[[ObjectStore], None], endpoint: StoreEndpoint
) -> None:
    check(endpoint.store)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store", base_url="http://127.0.0.1:1")


def ticket_of(store: FolderStore, upload: Upload, part: Part) -> Ticket:
    token = store.part_requests(upload, [part])[0].url.rpartition("/")[2]
    return store.ticket(token, method="PUT")


def receive(store: FolderStore, upload: Upload, number: int, content: bytes = CONTENT) -> Part:
    part, data = part_of(upload, number, content)
    with store.receive(ticket_of(store, upload, part)) as writer:
        writer.write(data[:3])
        writer.write(data[3:])
        return msgspec.structs.replace(part, etag=writer.commit().etag)


def test_a_part_that_was_cut_is_not_there(store: FolderStore) -> None:
    upload = store.begin("k", size=len(CONTENT), part_size=MIN_PART)
    part, data = part_of(upload, 2)
    ticket = ticket_of(store, upload, part)
    with store.receive(ticket) as writer:
        writer.write(data[:-1])
        with pytest.raises(Damaged):
            writer.commit()
        with pytest.raises(DataError, match="more than"):
            writer.write(b"xx")
    assert store.parts(upload) == []
    assert receive(store, upload, 2).crc32c == part.crc32c


def test_one_at_a_time_sends_a_part(store: FolderStore) -> None:
    upload = store.begin("k", size=len(CONTENT), part_size=MIN_PART)
    part, data = part_of(upload, 2)
    ticket = ticket_of(store, upload, part)
    other = receive(store, upload, 1)
    with store.receive(ticket) as writer:
        with pytest.raises(Busy):
            store.receive(ticket)
        with pytest.raises(Busy):
            store.complete(upload, [other, msgspec.structs.replace(part, etag="0")])
        with pytest.raises(Busy):
            store.abort(upload)
        assert store.sweep(seconds=-1) == 0
        writer.write(data)
        etag = writer.commit().etag
    store.complete(upload, [other, msgspec.structs.replace(part, etag=etag)])
    assert store.read("k", limit=len(CONTENT)) == CONTENT
    assert list((store._uploads).iterdir()) == []


def test_a_part_that_is_here_is_not_written_again(store: FolderStore) -> None:
    """Where its SHA-256 says that it is the same."""
    upload = store.begin("k", size=len(CONTENT), part_size=MIN_PART, checksum="sha256")
    part = receive(store, upload, 2)
    with store.receive(ticket_of(store, upload, part)) as writer:
        writer.write(b"rubbish")
    assert [p.number for p in store.parts(upload)] == [2]
    changed = CONTENT[:-1] + b"X"
    again = receive(store, upload, 2, changed)
    assert store.parts(upload)[0].sha256 == again.sha256 != part.sha256
    first = receive(store, upload, 1)
    store.complete(upload, [first, again])
    assert store.read("k", limit=len(CONTENT)) == changed


def test_a_part_of_the_same_crc32c_is_written_again(store: FolderStore) -> None:
    """It may be a forged one that is here."""
    upload = store.begin("k", size=len(CONTENT), part_size=MIN_PART)
    first = receive(store, upload, 1)
    theirs = receive(store, upload, 2, CONTENT[:MIN_PART] + forged(CONTENT[MIN_PART:]))
    mine = receive(store, upload, 2)
    assert (mine.crc32c, mine.etag != theirs.etag) == (theirs.crc32c, True)
    assert receive(store, upload, 2) == mine
    with pytest.raises(PartsMissing):
        store.complete(upload, [first, theirs])
    store.complete(upload, [first, mine])
    assert store.read("k", limit=len(CONTENT)) == CONTENT


def test_an_upload_of_a_version_that_knew_only_sha256(store: FolderStore) -> None:
    """Its folder, its marks and its links are those of that time."""
    upload = store.begin("k", size=5, part_size=MIN_PART, checksum="sha256")
    folder = store._uploads / upload.id
    began = msgspec.json.decode((folder / "upload").read_bytes())
    del began["checksum"]
    (folder / "upload").write_bytes(msgspec.json.encode(began))
    part, data = part_of(upload, 1, b"12345")
    with store.receive(ticket_of(store, upload, part)) as writer:
        writer.write(data)
        writer.commit()
    assert set(msgspec.json.decode((folder / "00001").read_bytes())) == {"size", "sha256"}
    assert store.complete(upload, [part]).size == 5


def test_a_mark_never_stands_for_bytes_that_are_being_replaced(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    receive(store, upload, 1, b"12345")
    part, data = part_of(upload, 1, b"54321")
    with store.receive(ticket_of(store, upload, part)) as writer:
        writer.write(data[:2])
    assert store.parts(upload) == []


def test_a_crash_between_placing_and_cleaning_up_is_no_loss(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    part = receive(store, upload, 1, b"12345")
    with mock.patch("sleap_rtc.storage.folder.shutil.rmtree"):
        done = store.complete(upload, [part])
    assert store.complete(upload, [part]) == done
    assert list(store._uploads.iterdir()) == []


def test_uploads_and_temporary_objects_go_in_time(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    part = receive(store, upload, 1, b"12345")
    store.create("uploads/old", b"1")
    store.create("rooms/kept", b"1")
    assert store.sweep(objects=("uploads/", 1000)) == 0
    assert store.sweep(seconds=-1, objects=("uploads/", -1)) == 2
    with pytest.raises(UnknownUpload):
        store.receive(ticket_of(store, upload, part))
    assert [found.key for found in store.keys("")] == ["rooms/kept"]
    (store._uploads / "half").mkdir()
    store.sweep(seconds=-1)
    assert list(store._uploads.iterdir()) == []


def test_a_full_disk_is_said_before_the_first_byte(store: FolderStore) -> None:
    with pytest.raises(OutOfSpace):
        store.begin("k", size=5 << 40, part_size=1 << 30)
    full = OSError(28, "No space left on device")
    with (
        mock.patch("sleap_rtc.storage.folder.reserve", side_effect=full),
        pytest.raises(OutOfSpace),
    ):
        store.begin("k", size=5, part_size=MIN_PART)
    assert list(store._uploads.iterdir()) == []


def test_a_disk_that_fills_while_a_part_comes(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    part, data = part_of(upload, 1, b"12345")
    full = OSError(28, "No space left on device")
    with (
        store.receive(ticket_of(store, upload, part)) as writer,
        mock.patch("os.pwrite", side_effect=full),
        pytest.raises(OutOfSpace),
    ):
        writer.write(data)
    assert store.parts(upload) == []


def test_a_disk_that_became_read_only(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    part, data = part_of(upload, 1, b"12345")
    read_only = OSError(30, "Read-only file system")
    denied = pytest.raises(StorageRefused, match="begin an upload to k: its disk is read-only")
    with mock.patch.object(Path, "mkdir", side_effect=read_only), denied:
        store.begin("k", size=5, part_size=MIN_PART)
    with store.receive(ticket_of(store, upload, part)) as writer:
        writer.write(data)
        with mock.patch("os.fsync", side_effect=read_only), pytest.raises(StorageRefused):
            writer.commit()
    assert store.parts(upload) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(PathNotPermitted):
        FolderStore(tmp_path / "store", base_url="")


def test_names_in_each_other_s_way_are_refused(store: FolderStore) -> None:
    store.create("a/b", b"1")
    with pytest.raises(AlreadyExists):
        store.create("a/b/c", b"1")
    assert not store.create("a", b"1")
    upload = store.begin("a/b/c", size=5, part_size=MIN_PART)
    part = receive(store, upload, 1, b"12345")
    with pytest.raises(AlreadyExists):
        store.complete(upload, [part])
    assert store.head("a") is None
    assert store.read("a/b/c", limit=1) is None


def test_a_link_in_the_folder_leads_nowhere(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    (store._objects / "link").symlink_to(tmp_path / "secret")
    assert store.head("link") is None
    assert store.read("link", limit=1) is None


def test_tickets_of_another_folder_are_refused(store: FolderStore, tmp_path: Path) -> None:
    other = FolderStore(tmp_path / "other", base_url="http://127.0.0.1:1")
    token = other.download_request("k").url.rpartition("/")[2]
    with pytest.raises(NotPermitted):
        store.ticket(token, method="GET")
    again = FolderStore(tmp_path / "other", base_url="")
    assert again.ticket(token, method="GET").key == "k"
    assert (tmp_path / "other" / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other" / "key").write_bytes(b"short")
    with pytest.raises(Damaged):
        FolderStore(tmp_path / "other", base_url="")


@pytest.mark.parametrize("upload_id", ["../../etc", "0" * 32, "0" * 31])
def test_an_upload_that_never_was(store: FolderStore, upload_id: str) -> None:
    upload = Upload(key="k", id=upload_id, size=5, part_size=MIN_PART)
    with pytest.raises(UnknownUpload):
        store.parts(upload)
    store.abort(upload)


def test_an_upload_under_another_key_is_unknown(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    with pytest.raises(UnknownUpload):
        store.parts(Upload(key="other", id=upload.id, size=5, part_size=MIN_PART))


def test_two_that_complete_at_once_both_hear_of_it(store: FolderStore) -> None:
    upload = store.begin("k", size=5, part_size=MIN_PART)
    part = receive(store, upload, 1, b"12345")
    barrier = threading.Barrier(4)

    def complete() -> int:
        barrier.wait()
        while True:
            try:
                return store.complete(upload, [part]).size
            except Busy:
                continue

    with ThreadPoolExecutor(4) as pool:
        assert [f.result() for f in [pool.submit(complete) for _ in range(4)]] == [5] * 4
