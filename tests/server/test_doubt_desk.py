"""What is said to be damaged: believed by nobody, read by the server, and sent anew by the next."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.errors import (
    Damaged,
    NotFound,
    NotTrusted,
    QuotaExceeded,
    SourceChanged,
    StorageUnreachable,
)
from sleap_rtc.server.comparing import GoingOn, digest_in_folder
from sleap_rtc.server.content_table import ContentTable
from sleap_rtc.server.doubt_desk import GOOD_FOR, DoubtDesk
from sleap_rtc.server.doubt_table import Doubt, DoubtTable
from sleap_rtc.server.sound_store import SoundStore
from sleap_rtc.server.storage_desk import QUIET, StorageDesk
from sleap_rtc.server.storage_rules import MustCompare
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.upload_table import UploadTable
from sleap_rtc.server.usage import Quota, Usage
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import MIN_PART, Part, StoredObject
from sleap_rtc.storage.service import (
    Area,
    CompleteUpload,
    ConfirmContents,
    NamedContent,
    OfferContents,
    ReportDamaged,
    RequestDownload,
    RequestUpload,
    content_key,
)
from sleap_rtc.testing.made_room import MadeRoom

ROOM = MadeRoom(3).room
OWNER, VIEWER, STRANGER = (DeviceId(c * 64) for c in "ade")
SMALL, LARGE = b"a model's weights", os.urandom(MIN_PART + 7)


class People:
    """A room with an owner and a viewer."""

    def member_of(self, device: DeviceId, room: RoomId) -> Member:
        if room != ROOM:
            raise NotFound(message="no such room")
        if device == STRANGER:
            raise NotTrusted(who="This device", why="it is no member")
        end = datetime(2030, 1, 1, tzinfo=UTC)
        role = "owner" if device == OWNER else "viewer"
        return Member(device=device, room=room, name="x", role=role, expires=end)


class Lab:
    """A folder whose objects may rot, and all that a server has around it.

    Args:
        folder: For all of it.
        bucket: Whether the storage desk takes the folder for a bucket, which it can't read.
    """

    def __init__(self, folder: Path, *, bucket: bool) -> None:
        self.quota = Quota()
        self.now = datetime.now(UTC)
        prepare_data_dir(folder / "data")
        self.store = Store(folder / "data")
        code = self.store.new_code(now=self.now)
        self.store.register_by_code(OWNER, code=code, name="a", program="", now=self.now)
        end = self.now + timedelta(days=30)
        owner = Member(device=OWNER, room=ROOM, name="x", role="owner", expires=end)
        self.store.create_room(owner, name="lab", now=self.now)
        self.objects = FolderStore(folder / "objects", base_url="", clock=lambda: self.now)
        self.table = DoubtTable(self.store.database)
        self.compared: list[str] = []
        self.failure: Exception | None = None
        self.bucket = bucket
        self.open()

    def open(self) -> None:
        """Begin as a server does that was started anew."""
        self.doubts = DoubtDesk(
            self.objects, self.table, People(), now=lambda: self.now, digest=self.digest
        )
        self.desk = StorageDesk(
            SoundStore(self.objects, self.doubts),
            UploadTable(self.store.database),
            ContentTable(self.store.database),
            People(),
            quota=self.quota,
            largest_parts=100 << 20,
            now=lambda: self.now,
            digest=None if self.bucket else lambda key: digest_in_folder(self.objects, key),
        )

    def digest(self, found: StoredObject, going_on: GoingOn) -> str:
        self.compared.append(found.key)
        going_on()
        if self.failure is not None:
            raise self.failure
        return digest_in_folder(self.objects, found.key, etag=found.etag)

    def path(self, data: bytes, area: Area = "rooms") -> Path:
        return Path(self.objects.name) / "objects" / key_of(data, area)

    def rot(self, data: bytes, area: Area = "rooms", *, silently: bool = True) -> None:
        """One bit of an object becomes another, and nothing else of it, if that is silent."""
        path = self.path(data, area)
        before = path.stat()
        with path.open("r+b") as file:
            file.write(bytes([data[0] ^ 1]))
        if silently:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def store_small(self, data: bytes = SMALL, area: Area = "rooms", *, sent: bool = True) -> bool:
        """Store a content in one piece, or get the link to do so; whether it had to be sent."""
        named = NamedContent(
            blake3=blake3(data).hexdigest(), size=len(data), sha256=hashlib.sha256(data).digest()
        )
        offer = OfferContents(room=ROOM, area=area, contents=(named,))
        (request,) = self.desk.offer_contents(OWNER, offer).requests
        if not sent:
            return request is not None
        if request is not None:
            ticket = self.objects.ticket(request.url.rpartition("/")[2], method="PUT")
            with self.objects.receive(ticket) as writer:
                writer.write(data)
                writer.commit()
        confirm = ConfirmContents(room=ROOM, area=area, contents=(named,))
        (told,) = self.desk.confirm_contents(OWNER, confirm).stored
        assert told is not None
        return request is not None

    def wanting(self, data: bytes, area: Area = "rooms") -> RequestUpload:
        digest = blake3(data).hexdigest()
        return RequestUpload(
            room=ROOM, area=area, blake3=digest, size=len(data), part_size=MIN_PART
        )

    def used(self) -> Usage:
        return UploadTable(self.store.database).used(ROOM)

    def store_large(self, data: bytes = LARGE, area: Area = "rooms") -> bool:
        """Store a content in parts; whether it had to be sent."""
        told = self.desk.request_upload(OWNER, self.wanting(data, area))
        if told.state == "there":
            return False
        upload = UploadTable(self.store.database).get(told.upload_id)
        assert upload is not None
        pieces = [data[at : at + MIN_PART] for at in range(0, len(data), MIN_PART)]
        parts = tuple(
            Part(number=n, size=len(piece), sha256=hashlib.sha256(piece).digest())
            for n, piece in enumerate(pieces, 1)
        )
        for request, piece in zip(
            self.objects.part_requests(upload.upload, parts), pieces, strict=True
        ):
            ticket = self.objects.ticket(request.url.rpartition("/")[2], method="PUT")
            with self.objects.receive(ticket) as writer:
                writer.write(piece)
                writer.commit()
        self.desk.complete_upload(OWNER, CompleteUpload(upload_id=told.upload_id, parts=parts))
        return True

    def report(
        self,
        data: bytes,
        area: Area = "rooms",
        *,
        device: DeviceId = VIEWER,
        compare: bool = True,
        **changes: Any,
    ) -> str:
        given = {"room": ROOM, "area": area, "blake3": blake3(data).hexdigest()} | changes
        return self.doubts.report_damaged(device, ReportDamaged(**given), compare=compare).found

    def read(self, data: bytes, area: Area = "rooms") -> bytes | None:
        """What whoever has a link reads."""
        return self.objects.read(key_of(data, area), limit=1 << 30)


def key_of(data: bytes, area: Area = "rooms") -> str:
    return content_key(area, ROOM, blake3(data).hexdigest())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def new(*, bucket: bool = False) -> Lab:
        made.append(Lab(tmp_path / str(len(made)), bucket=bucket))
        return made[-1]

    yield new
    for each in made:
        each.store.close()


@pytest.fixture(params=[False, True], ids=["folder", "bucket"])
def lab(make: Callable[..., Lab], request: pytest.FixtureRequest) -> Lab:
    return make(bucket=request.param)


@pytest.mark.parametrize("area", ["rooms", "uploads"])
def test_what_rotted_is_sent_anew_by_the_next_who_stores_it(lab: Lab, area: Area) -> None:
    for data, store in ((SMALL, lab.store_small), (LARGE, lab.store_large)):
        assert store(data, area)
        assert not store(data, area)
        lab.rot(data, area)
        assert not store(data, area)  # nobody knows yet
        assert lab.report(data, area) == "damaged"
        # It can still be read, since most of it may be good; and nobody relies on it.
        assert lab.read(data, area) not in (None, data)
        wanted = RequestDownload(room=ROOM, area=area, blake3=blake3(data).hexdigest())
        with pytest.raises(NotFound):
            lab.desk.request_download(OWNER, wanted)
        assert store(data, area)
        assert lab.read(data, area) == data
        assert not store(data, area)
        assert lab.desk.request_download(OWNER, wanted).size == len(data)
    assert len(lab.compared) == 2


def test_a_room_that_is_full_has_it_mended(lab: Lab) -> None:
    for store, data in ((lab.store_small, SMALL), (lab.store_large, LARGE)):
        store(data)
    lab.quota = Quota(size=len(SMALL) + len(LARGE), files=2)
    lab.open()
    with pytest.raises(QuotaExceeded):
        lab.store_small(b"")
    for data in (SMALL, LARGE):
        lab.rot(data)
        assert lab.report(data) == "damaged"
    # All of it at once, and what is begun and never sent counts as what is there does.
    lab.store_small(sent=False)
    lab.desk.request_upload(OWNER, lab.wanting(LARGE))
    assert lab.used() == Usage(size=lab.quota.size, files=lab.quota.files)
    # But a second one that is on its way at the same time is too much.
    with pytest.raises(QuotaExceeded):
        lab.store_large()
    lab.now += QUIET
    assert lab.store_large()
    assert lab.store_small()
    assert lab.used() == Usage(size=lab.quota.size, files=lab.quota.files)
    assert lab.read(SMALL) == SMALL
    assert lab.read(LARGE) == LARGE


def test_it_is_known_after_a_restart(lab: Lab) -> None:
    lab.store_small()
    lab.rot(SMALL)
    lab.report(SMALL)
    lab.open()
    assert lab.report(SMALL) == "damaged"
    assert lab.store_small()
    lab.doubts.sweep()
    assert lab.table.get(key_of(SMALL)) is None
    assert len(lab.compared) == 1


def test_nobody_is_believed(lab: Lab) -> None:
    lab.store_small()
    assert lab.report(SMALL) == "good"
    assert not lab.store_small()
    # However often it is said, it is read once a day.
    for _ in range(5):
        lab.now += GOOD_FOR / 6
        assert lab.report(SMALL) == "good"
    assert len(lab.compared) == 1
    lab.rot(SMALL)
    assert lab.report(SMALL) == "good"
    lab.now += GOOD_FOR / 5
    assert lab.report(SMALL) == "damaged"
    # What took its place is another version.
    lab.now += timedelta(seconds=2)
    assert lab.store_small()
    assert lab.report(SMALL) == "good"
    assert len(lab.compared) == 3


def test_who_may_report_what(lab: Lab) -> None:
    lab.store_small()
    with pytest.raises(NotTrusted):
        lab.report(SMALL, device=STRANGER)
    with pytest.raises(NotFound):
        lab.report(SMALL, room="b" * 32)
    assert lab.report(b"nothing that is there") == "gone"
    assert lab.report(SMALL, etag="another") == "gone"
    found = lab.objects.head(key_of(SMALL))
    assert found is not None
    assert lab.report(SMALL, etag=found.etag) == "good"
    assert len(lab.compared) == 1


def test_a_doubt_is_noted_before_it_is_compared(lab: Lab) -> None:
    lab.store_small()
    lab.rot(SMALL)
    with pytest.raises(MustCompare):
        lab.report(SMALL, compare=False)
    lab.open()  # the server was killed before it came to that
    assert not lab.store_small()
    lab.doubts.sweep()
    assert lab.report(SMALL, compare=False) == "damaged"
    assert lab.store_small()


def test_what_cant_be_read_stays_open_and_others_come_first(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleap_rtc.server.doubt_desk.COMPARED_AT_ONCE", 1)
    lab.store_small()
    lab.store_small(b"other")
    lab.failure = StorageUnreachable(store="it", why="it is away")
    assert lab.report(SMALL) == "open"
    lab.now += timedelta(seconds=1)
    assert lab.report(b"other") == "open"
    lab.now += timedelta(seconds=1)
    lab.compared.clear()
    for _ in range(3):
        lab.doubts.sweep()
        lab.now += timedelta(seconds=1)
    assert lab.compared == [key_of(SMALL), key_of(b"other"), key_of(SMALL)]
    lab.failure = None
    lab.doubts.sweep()
    lab.doubts.sweep()
    assert {each.key for each in lab.table.having("good")} == {key_of(SMALL), key_of(b"other")}


@pytest.mark.parametrize("failure", [SourceChanged(path="it"), NotFound(message="no"), None])
def test_what_goes_meanwhile_is_forgotten(lab: Lab, failure: Exception | None) -> None:
    lab.store_small()
    lab.failure = failure or FileNotFoundError()
    assert lab.report(SMALL) == "gone"
    assert lab.table.get(key_of(SMALL)) is None


def test_what_the_disk_cant_read_any_more_is_damaged(lab: Lab) -> None:
    lab.store_small()
    lab.failure = OSError(errno.EMFILE, "too many open files")
    assert lab.report(SMALL) == "open"
    lab.failure = Damaged(what="it", why="the server's disk can't read it any more")
    assert lab.report(SMALL) == "damaged"
    assert lab.store_small()


def test_a_server_that_stops_compares_no_more(lab: Lab) -> None:
    lab.store_small()
    lab.store_small(b"other")
    for data in (SMALL, b"other"):
        with pytest.raises(MustCompare):
            lab.report(data, compare=False)
    lab.doubts.close()
    assert lab.report(SMALL) == "open"
    lab.compared.clear()
    lab.doubts.sweep()
    assert len(lab.compared) == 1
    lab.open()
    lab.doubts.sweep()
    assert len(lab.table.having("good")) == 2


def test_the_sweep_forgets_what_is_over(lab: Lab) -> None:
    lab.store_small()
    lab.store_small(b"removed")
    lab.rot(b"removed")
    assert [lab.report(each) for each in (SMALL, b"removed")] == ["good", "damaged"]
    lab.doubts.sweep()
    assert lab.table.get(key_of(SMALL)) is not None
    assert lab.doubts.was_damaged(key_of(b"removed"))
    lab.objects.delete(key_of(b"removed"))
    lab.now += GOOD_FOR
    lab.doubts.sweep()
    assert lab.table.get(key_of(SMALL)) is None
    assert lab.table.get(key_of(b"removed")) is None
    assert not lab.doubts.was_damaged(key_of(b"removed"))


def test_a_bucket_that_marks_what_is_sent_anew_as_before() -> None:
    """An S3 store's ETag is the MD5 of what came: sent anew, the same content has the same."""
    then = datetime(2026, 1, 1, 12, 0, 0, 700_000, tzinfo=UTC)
    found = StoredObject(key="k", size=3, etag="e", modified=then)
    doubt = Doubt.of(found, ROOM, now=then)
    assert doubt.is_about(found)
    # A list of objects tells the time more finely than a question about one.
    assert doubt.is_about(replace(found, modified=then.replace(microsecond=0)))
    assert not doubt.is_about(replace(found, modified=then + timedelta(seconds=1)))
    assert not doubt.is_about(replace(found, size=4))
    assert not doubt.is_about(replace(found, etag="f"))
    assert Doubt.of(replace(found, modified=None), ROOM, now=then).modified == 0


def test_two_at_a_time_compare_once(lab: Lab) -> None:
    lab.store_small()
    lab.rot(SMALL)
    with pytest.raises(MustCompare):
        lab.report(SMALL, compare=False)
    (doubt,) = lab.table.having("open")
    first, second = lab.doubts._compared(doubt), lab.doubts._compared(doubt)
    assert first == second
    assert len(lab.compared) == 1
