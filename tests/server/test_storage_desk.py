"""What devices ask of the storage: a real folder and database, with whatever goes wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import Role
from sleap_rtc.errors import (
    Busy,
    Damaged,
    DataError,
    NotFound,
    NotPermitted,
    NotTrusted,
    OutOfSpace,
    PartsMissing,
    QuotaExceeded,
    StorageUnreachable,
    TooManyRequests,
    UnknownUpload,
)
from sleap_rtc.server import upload_table
from sleap_rtc.server.content_table import ContentTable
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.server.storage_rules import MustCompare
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.upload_table import UploadTable
from sleap_rtc.server.usage import Quota
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import MIN_PART, Part, StoredObject, Upload
from sleap_rtc.storage.service import (
    AbortUpload,
    Area,
    CompleteUpload,
    RenewUpload,
    RequestDownload,
    RequestUpload,
    UploadTold,
    content_key,
)
from sleap_rtc.testing.made_room import MadeRoom

MADE = MadeRoom(3)
ROOM = MADE.room
OWNER, OTHER, WORKER, VIEWER, STRANGER = (DeviceId(c * 64) for c in "abcde")
ROLES: dict[DeviceId, Role] = {
    OWNER: "owner",
    OTHER: "member",
    WORKER: "worker",
    VIEWER: "viewer",
}
DAY = timedelta(days=1)


class People:
    """The room's, by role."""

    def __init__(self) -> None:
        self.roles = dict(ROLES)

    def member_of(self, device: DeviceId, room: RoomId) -> Member:
        if room != ROOM:
            raise NotFound(message="no such room")
        if device not in self.roles:
            raise NotTrusted(who="This device", why="it is no member")
        return Member(
            device=device,
            room=room,
            name="x",
            role=self.roles[device],
            expires=datetime(2030, 1, 1, tzinfo=UTC),
        )


class Lab:
    """A desk over a real folder and a real database, and a clock that is set by hand."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.now = datetime.now(UTC)
        self.folder = folder
        data = folder / "data"
        prepare_data_dir(data)
        self.store = Store(data)
        code = self.store.new_code(now=self.now)
        self.store.register_by_code(OWNER, code=code, name="a", program="", now=self.now)
        owner = Member(device=OWNER, room=ROOM, name="x", role="owner", expires=self.now + 30 * DAY)
        self.store.create_room(owner, name="lab", now=self.now)
        self.objects = FolderStore(folder / "objects", base_url="", clock=lambda: self.now)
        self.people = People()
        self.table = UploadTable(self.store.database)
        self.given: dict[str, Any] = {
            "quota": Quota(),
            "largest_parts": 100 << 20,
            "now": lambda: self.now,
            "digest": self.digest,
        } | changes
        self.desk = self.desk_over(self.objects)

    def desk_over(self, objects: Any) -> StorageDesk:
        contents = ContentTable(self.store.database)
        return StorageDesk(objects, self.table, contents, self.people, **self.given)

    def digest(self, key: str) -> str:
        with self.objects.open(key) as found, open(found.fd, "rb", closefd=False) as file:
            return blake3(file.read()).hexdigest()

    def ask(self, data: bytes, *, device: DeviceId = OWNER, **changes: Any) -> UploadTold:
        return self.desk.request_upload(device, wanting(data, **changes))

    def send(self, told: UploadTold, data: bytes, numbers: Sequence[int] | None = None) -> None:
        """Send parts as their tickets let it."""
        parts = parts_of(data, told.part_size)
        for part in parts if numbers is None else [parts[n - 1] for n in numbers]:
            upload = self.table.get(told.upload_id)
            if upload is None:
                raise UnknownUpload(key=told.key)
            (request,) = self.objects.part_requests(upload.upload, [part])
            ticket = self.objects.ticket(request.url.removeprefix("/"), method="PUT")
            with self.objects.receive(ticket) as writer:
                start = (part.number - 1) * told.part_size
                writer.write(data[start : start + part.size])
                writer.commit()

    def complete(
        self, told: UploadTold, data: bytes, *, device: DeviceId = OWNER
    ) -> StoredObject | Any:
        request = CompleteUpload(
            upload_id=told.upload_id, parts=tuple(parts_of(data, told.part_size))
        )
        return self.desk.complete_upload(device, request)

    def upload(self, data: bytes, *, device: DeviceId = OWNER, **changes: Any) -> Any:
        told = self.ask(data, device=device, **changes)
        assert told.state == "open"
        self.send(told, data)
        return self.complete(told, data, device=device)

    def download(self, data: bytes, *, area: Area = "rooms", device: DeviceId = OWNER) -> Any:
        digest = blake3(data).hexdigest()
        request = RequestDownload(room=ROOM, area=area, blake3=digest)
        return self.desk.request_download(device, request)


def wanting(data: bytes, **changes: Any) -> RequestUpload:
    given: dict[str, Any] = {
        "room": ROOM,
        "area": "rooms",
        "blake3": blake3(data).hexdigest(),
        "size": len(data),
        "part_size": MIN_PART,
    }
    return RequestUpload(**(given | changes))


def parts_of(data: bytes, part_size: int) -> list[Part]:
    pieces = [data[at : at + part_size] for at in range(0, len(data), part_size)] or [b""]
    return [
        Part(number=n, size=len(piece), sha256=hashlib.sha256(piece).digest())
        for n, piece in enumerate(pieces, 1)
    ]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.store.close()


BIG = bytes(range(256)) * (MIN_PART // 256) + b"and some more"


# ── as it should be ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", [b"", b"small", BIG], ids=len)
def test_up_and_down(lab: Lab, data: bytes) -> None:
    told = lab.ask(data, parts=tuple(parts_of(data, MIN_PART)))
    assert (told.state, told.size, told.part_count) == ("open", len(data), len(told.requests))
    lab.send(told, data)
    done = lab.complete(told, data)
    assert (done.size, done.expires) == (len(data), None)
    found = lab.download(data, device=VIEWER)
    assert (found.size, found.etag, found.request.method) == (len(data), done.etag, "GET")
    assert lab.objects.read(found.key, limit=len(data)) == data


def test_what_is_there_is_not_uploaded_again(lab: Lab) -> None:
    lab.upload(b"data")
    told = lab.ask(b"data", device=OTHER)
    assert (told.state, told.upload_id, told.size) == ("there", "", 4)
    # Rooms and areas are apart.
    assert lab.ask(b"data", area="uploads").state == "open"


def test_the_server_chooses_the_parts(lab: Lab) -> None:
    told = lab.ask(BIG, part_size=None)
    assert (told.part_size, told.part_count) == (16 << 20, 1)


def test_an_upload_is_taken_up_where_it_stopped(lab: Lab) -> None:
    told = lab.ask(BIG)
    lab.send(told, BIG, [2])
    other = lab.ask(BIG)  # another process of the same device may be sending the first one
    assert (other.upload_id != told.upload_id, other.resumed) == (True, False)
    lab.desk.abort_upload(OWNER, AbortUpload(upload_id=other.upload_id))
    lab.now += timedelta(minutes=11)
    again = lab.ask(BIG)
    assert (again.upload_id, again.resumed) == (told.upload_id, True)
    status = lab.desk.upload_status(OWNER, told.upload_id)
    assert [part.number for part in status.parts] == [2]
    assert status.state == "open"
    lab.send(told, BIG, [1])
    lab.complete(told, BIG)
    assert lab.desk.upload_status(OWNER, told.upload_id).state == "done"
    other = lab.ask(BIG[:-1], part_size=MIN_PART + 1)
    lab.now += timedelta(minutes=11)
    assert lab.ask(BIG[:-1]).upload_id != other.upload_id  # with other parts it can't go on


def test_completing_twice_says_the_same(lab: Lab) -> None:
    told = lab.ask(b"data")
    lab.send(told, b"data")
    assert lab.complete(told, b"data") == lab.complete(told, b"data")


def test_requests_are_renewed(lab: Lab) -> None:
    told = lab.ask(BIG)
    parts = tuple(parts_of(BIG, MIN_PART))
    renewed = lab.desk.renew_upload(OWNER, RenewUpload(upload_id=told.upload_id, parts=parts))
    assert len(renewed.requests) == 2
    assert renewed.expires_in == 3_600
    assert renewed.requests[0].expires <= lab.now + timedelta(hours=1)


def test_an_upload_is_given_up(lab: Lab) -> None:
    told = lab.ask(b"data")
    with pytest.raises(NotPermitted, match="Another device"):
        lab.desk.abort_upload(OTHER, AbortUpload(upload_id=told.upload_id))
    for _ in range(2):
        lab.desk.abort_upload(OWNER, AbortUpload(upload_id=told.upload_id))
    with pytest.raises(UnknownUpload):
        lab.complete(told, b"data")
    assert lab.table.used(ROOM).size == 0
    done = lab.ask(b"data")
    lab.send(done, b"data")
    lab.complete(done, b"data")
    lab.desk.abort_upload(OWNER, AbortUpload(upload_id=done.upload_id))
    assert lab.ask(b"data").state == "there"  # what is complete is no upload any more


# ── rights and bounds ────────────────────────────────────────────────────────


def test_who_may_do_what(lab: Lab) -> None:
    assert lab.ask(b"1", device=WORKER).state == "open"
    assert lab.ask(b"1", device=OTHER, area="uploads").state == "open"
    with pytest.raises(NotPermitted, match="only reads its uploads"):
        lab.ask(b"1", device=WORKER, area="uploads")
    with pytest.raises(NotPermitted, match="viewer"):
        lab.ask(b"1", device=VIEWER)
    with pytest.raises(NotTrusted):
        lab.ask(b"1", device=STRANGER)
    with pytest.raises(NotTrusted):
        lab.download(b"1", device=STRANGER)
    with pytest.raises(NotFound):
        lab.desk.request_download(
            OWNER, RequestDownload(room="a" * 32, area="rooms", blake3="0" * 64)
        )
    with pytest.raises(NotFound, match="no content"):
        lab.download(b"nobody has this")


def test_others_uploads_are_nobodys_business(lab: Lab) -> None:
    told = lab.ask(b"data")
    parts = tuple(parts_of(b"data", MIN_PART))
    for ask in (
        lambda: lab.desk.upload_status(OTHER, told.upload_id),
        lambda: lab.complete(told, b"data", device=OTHER),
        lambda: lab.desk.renew_upload(OTHER, RenewUpload(upload_id=told.upload_id, parts=parts)),
        lambda: lab.desk.upload_status(OWNER, "0" * 32),
    ):
        with pytest.raises(UnknownUpload):
            ask()


def test_who_was_removed_can_go_on_with_nothing(lab: Lab) -> None:
    told = lab.ask(b"data", device=OTHER)
    lab.send(told, b"data")
    del lab.people.roles[OTHER]
    with pytest.raises(NotTrusted):
        lab.complete(told, b"data", device=OTHER)
    lab.people.roles[OTHER] = "viewer"
    with pytest.raises(NotPermitted):
        lab.desk.upload_status(OTHER, told.upload_id)


def test_a_room_has_a_quota(tmp_path: Path) -> None:
    lab = Lab(tmp_path, quota=Quota(size=10))
    lab.upload(b"12345")
    told = lab.ask(b"1234")
    with pytest.raises(QuotaExceeded, match=ROOM):
        lab.ask(b"ab")
    lab.desk.abort_upload(OWNER, AbortUpload(upload_id=told.upload_id))
    assert lab.ask(b"abcde").state == "open"
    assert lab.table.used(ROOM).size == 10
    lab.store.close()


def test_what_is_there_counts_as_it_is_whatever_was_said_of_it(lab: Lab) -> None:
    right, lie = lab.ask(BIG), lab.ask(BIG, size=1)
    lab.send(right, BIG)
    assert lab.complete(right, BIG).size == len(BIG)
    # Another upload was quicker, so of this one nothing is looked at.
    assert lab.complete(lie, b"x").size == len(BIG)
    assert lab.table.used(ROOM).size == len(BIG)


def test_two_who_ask_at_once_share_the_quota(tmp_path: Path) -> None:
    lab = Lab(tmp_path, quota=Quota(size=10))
    barrier = threading.Barrier(4)

    def ask(number: int) -> str:
        barrier.wait()
        try:
            return lab.ask(bytes([number]) * 4, device=OTHER).state
        except QuotaExceeded:
            return "full"

    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(ask, range(4)))
    assert found == ["full", "full", "open", "open"]
    assert len(list((tmp_path / "objects" / "uploads").iterdir())) == 2
    lab.store.close()


def test_a_device_has_not_any_number_of_uploads(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_table, "MAX_OPEN", 1)
    lab.ask(b"1")
    with pytest.raises(TooManyRequests):
        lab.ask(b"2")
    assert lab.ask(b"2", device=OTHER).state == "open"


def test_parts_that_there_are_not(lab: Lab) -> None:
    told = lab.ask(BIG)
    good = parts_of(BIG, MIN_PART)
    for bad in (
        [Part(number=10_000, size=1, sha256=bytes(32))],
        [Part(number=1, size=1, sha256=bytes(32))],
        [good[0], good[0]],
    ):
        with pytest.raises(DataError):
            lab.desk.renew_upload(OWNER, RenewUpload(upload_id=told.upload_id, parts=tuple(bad)))
    with pytest.raises(DataError):
        lab.desk.complete_upload(OWNER, CompleteUpload(upload_id=told.upload_id, parts=(good[0],)))
    lab.send(told, BIG, [1])
    with pytest.raises(PartsMissing, match="2"):
        lab.complete(told, BIG)
    lab.send(told, BIG, [2])
    lab.complete(told, BIG)


def test_sizes_that_no_store_takes(lab: Lab) -> None:
    with pytest.raises(DataError, match="parts"):
        lab.ask(b"", size=1 << 40)
    assert lab.table.used(ROOM).size == 0


def test_a_full_disk(lab: Lab) -> None:
    with pytest.raises(OutOfSpace):
        lab.ask(b"", size=1 << 42, part_size=1 << 30)
    assert lab.table.used(ROOM).size == 0


# ── what isn't what it says ──────────────────────────────────────────────────


def test_a_lying_hash_is_found_out(lab: Lab) -> None:
    truth = b"the truth"
    told = lab.ask(b"a lie....", blake3=blake3(truth).hexdigest())
    lab.send(told, b"a lie....")
    with pytest.raises(Damaged, match="another hash"):
        lab.complete(told, b"a lie....")
    with pytest.raises(UnknownUpload):
        lab.desk.upload_status(OWNER, told.upload_id)
    assert lab.table.used(ROOM).size == 0
    lab.upload(truth)
    assert lab.download(truth).size == len(truth)


def test_a_lie_never_replaces_what_was_compared(lab: Lab) -> None:
    truth = b"the truth"
    lie = lab.ask(b"a lie....", blake3=blake3(truth).hexdigest(), device=OTHER)
    lab.send(lie, b"a lie....")
    lab.upload(truth)
    lab.complete(lie, b"a lie....", device=OTHER)  # it is told of the truth
    key = content_key("rooms", ROOM, blake3(truth).hexdigest())
    assert lab.objects.read(key, limit=100) == truth


def test_what_was_damaged_on_the_disk_is_taken_anew(lab: Lab) -> None:
    lab.upload(b"data")
    (path,) = (lab.folder / "objects" / "objects").rglob(blake3(b"data").hexdigest())
    assert lab.ask(b"data", again=True).state == "there"  # it is not damaged
    path.write_bytes(b"dado")
    assert lab.ask(b"data").state == "there"
    told = lab.ask(b"data", again=True)
    assert told.state == "open"
    lab.send(told, b"data")
    lab.complete(told, b"data")
    assert path.read_bytes() == b"data"
    path.write_bytes(b"longer than it was")
    assert lab.ask(b"data").state == "open"


def test_comparing_is_said_to_take_long(lab: Lab) -> None:
    lab.upload(b"data")
    for changes in ({"again": True}, {"size": 5}):
        request = wanting(b"data", **changes)
        with pytest.raises(MustCompare) as caught:
            lab.desk.request_upload(OWNER, request, compare=False)
        assert caught.value.size == 4
        assert lab.desk.request_upload(OWNER, request).state == "there"
    assert lab.desk.request_upload(OWNER, wanting(b"data"), compare=False).state == "there"


def test_giving_up_doesnt_wait_for_completing(lab: Lab) -> None:
    first, second = lab.ask(b"data"), lab.ask(b"data", device=OTHER)
    lab.send(first, b"data")
    lab.table.set_state(first.upload_id, "completing", now=lab.now)
    with lab.desk._turns.of(first.key):  # as long as a large content is compared
        lab.desk.abort_upload(OTHER, AbortUpload(upload_id=second.upload_id))
        with pytest.raises(Busy):
            lab.desk.abort_upload(OWNER, AbortUpload(upload_id=first.upload_id))
    assert lab.table.get(second.upload_id) is None
    assert lab.complete(first, b"data").size == 4


@pytest.mark.parametrize("asked", ["renew", "request"])
def test_what_is_being_completed_isnt_open_again_for_being_asked_for(
    lab: Lab, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = lab.ask(b"data")
    lab.now += timedelta(minutes=11)

    def meanwhile(*_: object) -> list[Any]:
        lab.table.set_state(told.upload_id, "completing", now=lab.now)
        return []

    monkeypatch.setattr(lab.objects, "parts", meanwhile)
    monkeypatch.setattr(lab.objects, "part_requests", meanwhile)
    if asked == "request":
        assert lab.ask(b"data").upload_id != told.upload_id
    else:
        part = parts_of(b"data", MIN_PART)[0]
        lab.desk.renew_upload(OWNER, RenewUpload(upload_id=told.upload_id, parts=(part,)))
    assert lab.desk.upload_status(OWNER, told.upload_id).state == "completing"


def test_two_devices_upload_the_same(lab: Lab) -> None:
    first, second = lab.ask(BIG), lab.ask(BIG, device=OTHER)
    assert first.upload_id != second.upload_id
    lab.send(first, BIG)
    lab.send(second, BIG)
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(lab.complete, first, BIG),
            pool.submit(lab.complete, second, BIG, device=OTHER),
        ]
        sizes = [each.result().size for each in done]
    assert sizes == [len(BIG)] * 2
    assert lab.table.used(ROOM).size == len(BIG)
    assert list((lab.folder / "objects" / "uploads").iterdir()) == []


# ── crashes ──────────────────────────────────────────────────────────────────


class Flaky:
    """A store that breaks off before or after it did what it was asked."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store
        self.before = self.after = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        if self.before:
            raise StorageUnreachable(store="it", why="it broke off")
        found = self._store.complete(upload, parts)
        if self.after:
            raise StorageUnreachable(store="it", why="it broke off")
        return found


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("again", ["complete", "recover", "abort", "sweep"])
def test_a_crash_while_completing(lab: Lab, when: str, again: str) -> None:
    flaky = Flaky(lab.objects)
    lab.desk = lab.desk_over(flaky)
    told = lab.ask(b"data")
    lab.send(told, b"data")
    setattr(flaky, when, True)
    with pytest.raises(StorageUnreachable):
        lab.complete(told, b"data")
    assert lab.desk.upload_status(OWNER, told.upload_id).state == "completing"
    with pytest.raises(NotFound):
        lab.download(b"data")  # nobody is told of it as long as that isn't known
    setattr(flaky, when, False)
    if again == "complete":
        lab.complete(told, b"data")
    elif again == "recover":
        lab.desk.recover()
        lab.complete(told, b"data")
    elif again == "abort":
        lab.desk.abort_upload(OWNER, AbortUpload(upload_id=told.upload_id))
    else:
        lab.now += DAY + timedelta(minutes=1)
        assert lab.desk.sweep() == 1
    if when == "after" or again in ("complete", "recover"):
        assert lab.download(b"data").size == 4
        assert lab.ask(b"data").state == "there"
    else:
        assert lab.ask(b"data").state == "open"


def test_a_crash_before_a_lie_was_compared(lab: Lab) -> None:
    flaky = Flaky(lab.objects)
    lab.desk = lab.desk_over(flaky)
    told = lab.ask(b"a lie", blake3=blake3(b"truth").hexdigest())
    lab.send(told, b"a lie")
    flaky.after = True
    with pytest.raises(StorageUnreachable):
        lab.complete(told, b"a lie")
    lab.desk.recover()
    with pytest.raises(NotFound):
        lab.download(b"truth")
    assert list(lab.objects.keys("")) == []


def test_a_room_that_is_lost_from_the_store(lab: Lab) -> None:
    told = lab.ask(b"data")
    lab.send(told, b"data")
    done = lab.complete(told, b"data")
    lab.objects.delete(done.key)
    with pytest.raises(UnknownUpload):
        lab.complete(told, b"data")
    assert lab.table.used(ROOM).size == 0
    lab.upload(b"data")


def test_an_upload_that_the_store_gave_up_starts_anew(lab: Lab) -> None:
    told = lab.ask(b"data")
    row = lab.table.get(told.upload_id)
    assert row is not None
    lab.objects.abort(row.upload)
    with pytest.raises(UnknownUpload):
        lab.desk.upload_status(OWNER, told.upload_id)
    assert lab.ask(b"data").upload_id != told.upload_id


# ── time ─────────────────────────────────────────────────────────────────────


def test_the_temporary_area_is_emptied_after_a_day(lab: Lab) -> None:
    done = lab.upload(b"data", area="uploads")
    assert done.expires == lab.now + DAY
    lab.upload(b"data")
    open_one = lab.ask(b"other")
    lab.now += DAY - timedelta(minutes=1)
    assert lab.desk.sweep() == 0
    assert lab.ask(b"data", area="uploads").expires == lab.now + DAY  # asked for, it stays longer
    lab.now += timedelta(minutes=2)
    assert lab.desk.sweep() == 3  # two done uploads and an open one
    with pytest.raises(UnknownUpload):
        lab.desk.upload_status(OWNER, open_one.upload_id)
    lab.now += DAY
    assert lab.desk.sweep() == 1
    with pytest.raises(NotFound):
        lab.download(b"data", area="uploads")
    assert lab.download(b"data").size == 4
    assert lab.table.used(ROOM).size == 4


def test_what_is_asked_for_while_it_is_swept_stays_or_is_not_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.upload(b"data", area="uploads")
    lab.now += DAY
    answers: list[str] = []
    real = lab.table.condemn

    def ask_before(key: str, moment: datetime) -> bool:
        answers.append(lab.ask(b"data", area="uploads").state)
        return real(key, moment)

    monkeypatch.setattr(lab.table, "condemn", ask_before)
    lab.desk.sweep()
    assert answers == ["there"]
    assert lab.download(b"data", area="uploads").size == 4
    lab.now += DAY

    def ask_after(key: str, moment: datetime) -> bool:
        gone = real(key, moment)
        answers.append(lab.ask(b"data", area="uploads").state)
        return gone

    monkeypatch.setattr(lab.table, "condemn", ask_after)
    with monkeypatch.context() as away:
        away.setattr(lab.objects, "delete", unreachable)
        lab.desk.sweep()
    assert answers == ["there", "open"]
    monkeypatch.undo()
    assert lab.desk.sweep() == 1  # what couldn't be removed is, when the store is back
    with pytest.raises(NotFound):
        lab.download(b"data", area="uploads")


def unreachable(_: str) -> None:
    raise StorageUnreachable(store="it", why="it is away")


def test_a_store_that_cannot_be_read_goes_by_its_own_clock(tmp_path: Path) -> None:
    lab = Lab(tmp_path, digest=None)
    lab.upload(b"data", area="uploads")
    assert lab.ask(b"data", area="uploads").state == "there"
    lab.now += timedelta(hours=13)
    assert lab.ask(b"data", area="uploads").state == "open"
    lab.upload(b"again")
    told = lab.ask(b"again", again=True)
    assert told.state == "open"
    lab.send(told, b"again")
    assert lab.complete(told, b"again").size == 5
    lab.store.close()


def test_a_clock_that_goes_back_loses_nothing(lab: Lab) -> None:
    told = lab.ask(b"data")
    lab.now -= 10 * DAY
    lab.send(told, b"data")
    lab.complete(told, b"data")
    assert lab.desk.sweep() == 0
    assert lab.download(b"data").size == 4


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from(["ask", "send", "complete", "abort", "sweep", "day"]), max_size=12))
def test_whatever_is_asked_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    told: UploadTold | None = None
    for step in steps:
        try:
            match step:
                case "ask":
                    told = lab.ask(b"data")
                case "send" if told and told.state == "open":
                    lab.send(told, b"data")
                case "complete" if told and told.state == "open":
                    lab.complete(told, b"data")
                case "abort" if told and told.state == "open":
                    lab.desk.abort_upload(OWNER, AbortUpload(upload_id=told.upload_id))
                case "sweep":
                    lab.desk.sweep()
                case "day":
                    lab.now += DAY
        except (UnknownUpload, PartsMissing):
            told = lab.ask(b"data")
    there = list(lab.objects.keys(""))
    rows = lab.table.untouched_since(lab.now + DAY)
    under_way = [row for row in rows if row.state != "done"]
    assert lab.table.used(ROOM).size == 4 * (len(there) + len(under_way))
    assert [each.size for each in there] in ([], [4])
    lab.store.close()
