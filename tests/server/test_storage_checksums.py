"""Uploads whose parts are named by CRC32C, beside senders and uploads that don't know it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.errors import DataError, PartsMissing
from sleap_rtc.server.store import FILE, Store
from sleap_rtc.server.upload_table import UploadTable
from sleap_rtc.server.usage import Usage
from sleap_rtc.storage.service import AbortUpload, CompleteUpload, RenewUpload
from sleap_rtc.testing.store_conformance import forged, part_of

from .test_storage_desk import BIG, OWNER, ROOM, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.store.close()


def test_parts_are_named_by_crc32c_for_who_knows_it(lab: Lab) -> None:
    told = lab.ask(BIG, crc32c=True)
    assert told.checksum == lab.desk.upload_status(OWNER, told.upload_id).checksum == "crc32c"
    row = lab.table.get(told.upload_id)
    assert row is not None
    parts = []
    for number in (1, 2):
        part, data = part_of(row.upload, number, BIG)
        (request,) = lab.desk.renew_upload(
            OWNER, RenewUpload(upload_id=told.upload_id, parts=(part,))
        ).requests
        ticket = lab.objects.ticket(request.url.removeprefix("/"), method="PUT")
        for bytes_sent in (forged(data), data):
            with lab.objects.receive(ticket) as writer:
                writer.write(bytes_sent)
                etag = writer.commit().etag
        parts.append(msgspec.structs.replace(part, etag=etag))
    for lacking in ("", "0" * 64):
        unnamed = msgspec.structs.replace(parts[1], etag=lacking)
        with pytest.raises((DataError, PartsMissing)):
            lab.desk.complete_upload(
                OWNER, CompleteUpload(upload_id=told.upload_id, parts=(parts[0], unnamed))
            )
    done = lab.desk.complete_upload(
        OWNER, CompleteUpload(upload_id=told.upload_id, parts=tuple(parts))
    )
    assert lab.objects.read(done.key, limit=len(BIG)) == BIG


def test_who_doesnt_know_crc32c_isnt_given_an_upload_by_it(lab: Lab) -> None:
    """A program of an earlier version on the same device, after one of this."""
    quick = lab.ask(BIG, crc32c=True)
    lab.now += timedelta(minutes=11)
    old = lab.ask(BIG)
    assert (old.checksum, old.resumed) == ("sha256", False)
    lab.now += timedelta(minutes=11)
    again = lab.ask(BIG, crc32c=True)
    assert (again.upload_id, again.checksum) == (quick.upload_id, "crc32c")
    lab.desk.abort_upload(OWNER, AbortUpload(upload_id=quick.upload_id))
    lab.now += timedelta(minutes=11)
    # What an earlier version has begun goes on as it was.
    told = lab.ask(BIG, crc32c=True)
    assert (told.upload_id, told.checksum) == (old.upload_id, "sha256")
    lab.send(told, BIG)
    assert lab.complete(told, BIG).size == len(BIG)


def test_that_an_upload_goes_on_is_noted_now_and_then(lab: Lab) -> None:
    """Not for each of its parts, and often enough that nobody else takes it up."""
    told = lab.ask(BIG, crc32c=True)
    row = lab.table.get(told.upload_id)
    assert row is not None
    request = RenewUpload(upload_id=told.upload_id, parts=(part_of(row.upload, 2, BIG)[0],))
    for seconds, noted in ((1, False), (60, True), (1, False)):
        before = lab.table.get(told.upload_id)
        lab.now += timedelta(seconds=seconds)
        lab.desk.renew_upload(OWNER, request)
        assert (lab.table.get(told.upload_id) != before) is noted
    lab.now += timedelta(minutes=9)
    assert lab.ask(BIG, crc32c=True).upload_id != told.upload_id


def test_an_upload_from_before_the_upgrade_ends_well(tmp_path: Path) -> None:
    """Its row has no checksum, and its folder says nothing of one."""
    lab = Lab(tmp_path)
    told = lab.ask(BIG)
    lab.send(told, BIG, [1])
    lab.store.close()
    path = tmp_path / "data" / FILE
    with contextlib.closing(sqlite3.connect(path)) as before:
        for (name,) in before.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            before.execute(f"DROP TRIGGER {name}")
        for view in ("coming", "recount"):
            before.execute(f"DROP VIEW {view}")
        for table in ("usage", "replaced"):
            before.execute(f"DROP TABLE {table}")
        before.execute("DROP TABLE doubts")
        before.execute("ALTER TABLE uploads DROP COLUMN checksum")
        before.execute("PRAGMA user_version = 4")
    (began,) = (tmp_path / "objects" / "uploads").glob("*/upload")
    kept = msgspec.json.decode(began.read_bytes())
    del kept["checksum"]
    began.write_bytes(msgspec.json.encode(kept))
    lab.store = Store(tmp_path / "data")
    lab.table = UploadTable(lab.store.database)
    lab.desk = lab.desk_over(lab.objects)
    status = lab.desk.upload_status(OWNER, told.upload_id)
    assert ([part.number for part in status.parts], status.checksum) == ([1], "sha256")
    lab.send(told, BIG, [2])
    assert lab.table.used(ROOM) == Usage(size=len(BIG), files=1)
    assert lab.complete(told, BIG).size == len(BIG)
    assert lab.table.used(ROOM) == Usage(size=len(BIG), files=1)
    lab.store.close()
