"""Many contents at once: over a real folder, and over one that acts as buckets do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.auth.certificates import Member
from sleap_rtc.domain.ids import DeviceId, RoomId
from sleap_rtc.domain.places import Role
from sleap_rtc.errors import (
    AlreadyExists,
    Busy,
    Damaged,
    DataError,
    NotFound,
    NotPermitted,
    NotTrusted,
    QuotaExceeded,
    StorageUnreachable,
    TooManyRequests,
)
from sleap_rtc.server import content_desk, content_table
from sleap_rtc.server.content_table import ContentTable, ExpectedRow
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.server.storage_rules import MustCompare
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.upload_table import UploadTable
from sleap_rtc.server.usage import Quota, Usage
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import MIN_PART, StoredObject
from sleap_rtc.storage.service import (
    Area,
    CompleteUpload,
    ConfirmContents,
    ContentsOffered,
    NamedContent,
    OfferContents,
    RequestLinks,
    RequestUpload,
    content_key,
)
from sleap_rtc.testing.made_room import MadeRoom

ROOM = MadeRoom(3).room
OWNER, OTHER, WORKER, VIEWER, STRANGER = (DeviceId(c * 64) for c in "abcde")
ROLES: dict[DeviceId, Role] = {
    OWNER: "owner",
    OTHER: "member",
    WORKER: "worker",
    VIEWER: "viewer",
}
DAY = timedelta(days=1)
DATAS = (b"one", b"two", b"", b"four" * 1000)


class People:
    """The room's, by role."""

    def member_of(self, device: DeviceId, room: RoomId) -> Member:
        if room != ROOM:
            raise NotFound(message="no such room")
        if device not in ROLES:
            raise NotTrusted(who="This device", why="it is no member")
        end = datetime(2030, 1, 1, tzinfo=UTC)
        return Member(device=device, room=room, name="x", role=ROLES[device], expires=end)


class Lab:
    """A desk over a folder, and a clock that is set by hand.

    Args:
        folder: For all of it.
        bucket: Whether the desk takes the folder for a bucket, whose contents it can't read.
        quota: Bytes that the room may have.
        files: How many it may have.
    """

    def __init__(
        self, folder: Path, *, bucket: bool = False, quota: int = 0, files: int = 0
    ) -> None:
        self.now = datetime.now(UTC)
        prepare_data_dir(folder / "data")
        self.store = Store(folder / "data")
        code = self.store.new_code(now=self.now)
        self.store.register_by_code(OWNER, code=code, name="a", program="", now=self.now)
        owner = Member(device=OWNER, room=ROOM, name="x", role="owner", expires=self.now + 30 * DAY)
        self.store.create_room(owner, name="lab", now=self.now)
        self.objects = FolderStore(folder / "objects", base_url="", clock=lambda: self.now)
        self.uploads = UploadTable(self.store.database)
        self.asked: list[str] = []
        self.desk = StorageDesk(
            self,  # type: ignore[arg-type]
            self.uploads,
            ContentTable(self.store.database),
            People(),
            quota=Quota(size=quota, files=files),
            largest_parts=100 << 20,
            now=lambda: self.now,
            digest=None if bucket else self.digest,
        )

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        self.asked += keys
        return self.objects.heads(keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objects, name)

    def digest(self, key: str) -> str:
        with self.objects.open(key) as found:
            return blake3(os.pread(found.fd, found.about.size, 0)).hexdigest()

    def offer(
        self,
        datas: Sequence[bytes] = DATAS,
        *,
        area: Area = "rooms",
        device: DeviceId = OWNER,
        again: bool = False,
    ) -> ContentsOffered:
        request = OfferContents(room=ROOM, area=area, contents=named(datas), again=again)
        return self.desk.offer_contents(device, request)

    def put(self, offered: ContentsOffered, datas: Sequence[bytes] = DATAS) -> None:
        for request, data in zip(offered.requests, datas, strict=True):
            if request is not None:
                ticket = self.objects.ticket(request.url.rpartition("/")[2], method="PUT")
                with self.objects.receive(ticket) as writer:
                    writer.write(data)
                    writer.commit()

    def confirm(
        self, datas: Sequence[bytes] = DATAS, *, area: Area = "rooms", device: DeviceId = OWNER
    ) -> list[int | None]:
        request = ConfirmContents(room=ROOM, area=area, contents=named(datas))
        told = self.desk.confirm_contents(device, request).stored
        return [None if each is None else each.size for each in told]

    def upload(self, datas: Sequence[bytes] = DATAS, **more: Any) -> None:
        self.put(self.offer(datas, **more), datas)
        assert None not in self.confirm(datas, **more)

    def path(self, data: bytes, area: Area = "rooms") -> Path:
        key = content_key(area, ROOM, blake3(data).hexdigest())
        return Path(self.objects.name) / "objects" / key


def named(datas: Sequence[bytes]) -> tuple[NamedContent, ...]:
    return tuple(
        NamedContent(
            blake3=blake3(data).hexdigest(), size=len(data), sha256=hashlib.sha256(data).digest()
        )
        for data in datas
    )


def lacking(offered: ContentsOffered) -> list[bool]:
    return [request is not None for request in offered.requests]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def new(**more: Any) -> Lab:
        made.append(Lab(tmp_path / str(len(made)), **more))
        return made[-1]

    yield new
    for each in made:
        each.store.close()


@pytest.fixture(params=[False, True], ids=["folder", "bucket"])
def lab(make: Callable[..., Lab], request: pytest.FixtureRequest) -> Lab:
    return make(bucket=request.param)


# ── as it should be ──────────────────────────────────────────────────────────


def test_offered_sent_confirmed_and_there(lab: Lab) -> None:
    offered = lab.offer()
    assert lacking(offered) == [True] * 4
    assert lab.asked == []  # of what nobody has spoken of the store isn't asked
    assert lab.confirm() == [None] * 4
    lab.put(offered)
    assert lab.uploads.used(ROOM).size == sum(map(len, DATAS))
    assert lab.confirm() == [len(data) for data in DATAS]
    assert lab.confirm() == [len(data) for data in DATAS]  # its answer may get lost
    assert lab.uploads.used(ROOM).size == sum(map(len, DATAS))
    assert lacking(lab.offer()) == [False] * 4
    assert lacking(lab.offer((b"five", *DATAS), device=WORKER)) == [True] + [False] * 4
    # Areas are apart.
    assert lacking(lab.offer(area="uploads")) == [True] * 4


def test_what_was_sent_and_never_confirmed_is_not_sent_again(lab: Lab) -> None:
    lab.put(lab.offer())
    assert lacking(lab.offer()) == [False] * 4
    # Whoever asks next, even if the sender never comes back.
    assert lacking(lab.offer(device=OTHER)) == [False] * 4


def test_only_what_was_offered_to_whom_is_confirmed(lab: Lab) -> None:
    lab.put(lab.offer())
    assert lab.confirm(device=OTHER) == [None] * 4
    lab.path(b"two").unlink()
    assert lab.confirm() == [3, None, 0, 4000]
    lab.put(lab.offer())
    assert lab.confirm() == [3, 3, 0, 4000]


def test_links_to_read(lab: Lab) -> None:
    lab.upload()
    hashes = tuple(blake3(data).hexdigest() for data in (*DATAS, b"not there"))
    request = RequestLinks(room=ROOM, area="rooms", contents=hashes)
    told = lab.desk.request_links(VIEWER, request)
    assert len(told.requests) == 5
    for link, data in zip(told.requests, DATAS, strict=False):
        ticket = lab.objects.ticket(link.url.rpartition("/")[2], method="GET")
        assert lab.objects.read(ticket.key, limit=4000) == data


def test_temporary_ones_go_and_permanent_ones_stay(make: Callable[..., Lab]) -> None:
    lab = make()
    lab.upload(area="uploads")
    lab.upload()
    lab.now += DAY / 2
    assert lacking(lab.offer(DATAS[:1], area="uploads")) == [False]
    lab.now += 0.6 * DAY
    lab.desk.sweep()
    assert lacking(lab.offer(area="uploads")) == [False, True, True, True]
    assert lacking(lab.offer()) == [False] * 4


# ── rights and bounds ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("device", "area", "error"),
    [
        (VIEWER, "rooms", NotPermitted),
        (WORKER, "uploads", NotPermitted),
        (STRANGER, "rooms", NotTrusted),
    ],
)
def test_who_may_not(lab: Lab, device: DeviceId, area: Area, error: type[Exception]) -> None:
    with pytest.raises(error):
        lab.offer(device=device, area=area)
    with pytest.raises(error):
        lab.confirm(device=device, area=area)
    if device == STRANGER:
        with pytest.raises(error):
            lab.desk.request_links(device, RequestLinks(room=ROOM, area=area, contents=("0" * 64,)))


def test_one_that_is_named_twice(lab: Lab) -> None:
    with pytest.raises(DataError, match="twice"):
        lab.offer((b"one", b"one"))
    with pytest.raises(DataError, match="twice"):
        lab.confirm((b"one", b"one"))


def test_quotas_count_what_is_expected(make: Callable[..., Lab]) -> None:
    lab = make(quota=5_000)
    lab.offer()
    lab.offer()  # asked for again it counts once
    with pytest.raises(QuotaExceeded) as caught:
        lab.offer((b"x" * 900, b"y" * 900))
    assert caught.value.details["need"] == "806 B"
    assert lab.uploads.used(ROOM).size == sum(map(len, DATAS))
    lab.offer((b"x" * 900,))
    request = RequestUpload(room=ROOM, area="rooms", blake3="0" * 64, size=100, part_size=MIN_PART)
    with pytest.raises(QuotaExceeded):  # uploads in parts count them too
        lab.desk.request_upload(OWNER, request)
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == 0


def test_who_names_a_size_and_then_a_smaller_one_uses_what_he_has_links_for(
    make: Callable[..., Lab],
) -> None:
    lab = make()
    data = b"x" * 1_000
    large = lab.offer((data,), area="uploads")
    lie = tuple(msgspec.structs.replace(each, size=1) for each in named((data,)))
    small = OfferContents(room=ROOM, area="uploads", contents=lie)
    lab.desk.offer_contents(OWNER, small)
    assert lab.uploads.used(ROOM).size == 1_000
    lab.put(large, (data,))
    confirmed = ConfirmContents(room=ROOM, area="uploads", contents=lie)
    assert lab.desk.confirm_contents(OWNER, confirmed).stored == (None,)
    # Nobody ever says what became of it.
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == 1_000
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == 0
    assert not lab.path(data, "uploads").exists()


def test_in_a_bucket_a_link_for_more_counts_as_long_as_it_is_good(
    make: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(bucket=True)
    real = lab.objects.content_request
    monkeypatch.setattr(
        lab.objects,
        "content_request",
        lambda content, **more: real(content, **more | {"blake3": ""}),  # it can't compare that
    )
    (large,) = named((b"x" * 1_000,))
    small = msgspec.structs.replace(large, size=1, sha256=hashlib.sha256(b"x").digest())

    def offer(content: NamedContent) -> ContentsOffered:
        request = OfferContents(room=ROOM, area="rooms", contents=(content,), again=True)
        return lab.desk.offer_contents(OWNER, request)

    lab.put(offer(small), (b"x",))
    links = offer(large), offer(small)
    lab.put(links[1], (b"x",))
    request = ConfirmContents(room=ROOM, area="rooms", contents=(small,))
    assert lab.desk.confirm_contents(OWNER, request).stored[0] is not None
    assert lab.uploads.used(ROOM).size == 1_000  # in the place of what is there
    lab.put(links[0], (b"x" * 1_000,))
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == 1_000


def test_a_device_has_links_for_so_many(
    make: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_table, "MAX_EXPECTED", 4)
    lab = make()
    lab.offer()
    with pytest.raises(TooManyRequests, match="This device"):
        lab.offer((b"one more",))
    lab.offer((b"one more",), device=OTHER)
    lab.put(lab.offer())
    lab.confirm()
    lab.offer((b"one more",))


# ── lies and bad luck ────────────────────────────────────────────────────────


def test_bytes_of_another_hash_never_get_there(make: Callable[..., Lab]) -> None:
    """Who names another BLAKE3 than that of what he sends; a folder finds out at once."""
    lab = make()
    (right,) = named((b"data",))
    liar = msgspec.structs.replace(right, blake3=blake3(b"what I say").hexdigest())
    request = OfferContents(room=ROOM, area="rooms", contents=(liar,))
    offered = lab.desk.offer_contents(OWNER, request)
    with pytest.raises(Damaged):
        lab.put(offered, (b"data",))
    assert not lab.path(b"what I say").exists()


def test_a_link_puts_nothing_in_the_place_of_what_is_there(lab: Lab) -> None:
    first, second = lab.offer((b"one",)), lab.offer((b"one",), device=OTHER)
    lab.put(first, (b"one",))
    with pytest.raises(AlreadyExists):
        lab.put(second, (b"one",))
    assert lab.confirm((b"one",), device=OTHER) == [3]
    assert lab.confirm((b"one",)) == [3]


def test_what_is_damaged_is_replaced(lab: Lab) -> None:
    lab.upload()
    lab.path(b"one").write_bytes(b"two")
    assert lacking(lab.offer()) == [False] * 4  # its size is right
    offered = lab.offer((b"one", b"two"), again=True)
    # A folder knows which of them is damaged; of buckets whoever asks is believed.
    in_folder = [True, False]
    assert lacking(offered) in (in_folder, [True, True])
    lab.put(offered, (b"one", b"two"))
    assert lab.confirm((b"one", b"two")) == [3, 3]
    assert lab.path(b"one").read_bytes() == b"one"


def test_what_the_disk_can_t_read_any_more_is_replaced(
    make: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make()
    lab.upload()

    def lost(key: str) -> str:
        raise Damaged(what=key, why="the server's disk can't read it any more")

    with monkeypatch.context() as broken:
        broken.setattr(lab.desk._contents, "_digest", lost)
        offered = lab.offer((b"one",), again=True)
    assert lacking(offered) == [True]
    lab.put(offered, (b"one",))
    assert lab.confirm((b"one",)) == [3]


def test_what_has_another_size_is_replaced(lab: Lab) -> None:
    lab.upload()
    lab.path(b"one").write_bytes(b"")
    offered = lab.offer()
    assert lacking(offered) == [True, False, False, False]
    lab.put(offered)
    assert lab.path(b"one").read_bytes() == b"one"


def test_what_is_larger_than_one_piece_is_not_read_for_who_asks(
    make: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make()
    lab.upload()
    lab.path(DATAS[3]).write_bytes(b"damaged" * 1_000)
    monkeypatch.setattr(content_desk, "MAX_WHOLE", 6_999)
    assert lacking(lab.offer()) == [False, False, False, True]
    lab.offer(again=True)
    assert lab.path(DATAS[3]).exists()
    monkeypatch.setattr(content_desk, "MAX_WHOLE", 7_000)
    lab.put(lab.offer(again=True))
    assert lab.path(DATAS[3]).read_bytes() == DATAS[3]


def test_in_a_bucket_what_goes_soon_is_sent_again(make: Callable[..., Lab]) -> None:
    lab = make(bucket=True)
    lab.upload(area="uploads")
    old = lab.now.timestamp() - 13 * 3_600
    os.utime(lab.path(b"one", "uploads"), (old, old))
    assert lab.confirm(area="uploads") == [None, 3, 0, 4000]
    offered = lab.offer(area="uploads")
    assert lacking(offered) == [True, False, False, False]
    lab.put(offered)
    assert lab.confirm(area="uploads") == [3, 3, 0, 4000]


def test_what_somebody_is_about_to_confirm_is_not_swept(make: Callable[..., Lab]) -> None:
    lab = make()
    lab.upload((b"one",), area="uploads")
    lab.now += 1.5 * DAY
    # Known, and there: whoever asks now is told so, and it stays; who asked to send it, too.
    lab.offer((b"one",), area="uploads", again=True)
    lab.offer((b"two",), area="uploads")
    lab.desk.sweep()
    assert lab.path(b"one", "uploads").exists()


def test_what_a_sweep_left_half_done_is_finished_first(make: Callable[..., Lab]) -> None:
    lab = make()
    lab.upload((b"one",), area="uploads")
    key = content_key("uploads", ROOM, blake3(b"one").hexdigest())
    assert lab.uploads.condemn(key, lab.now + DAY)
    offered = lab.offer((b"one",), area="uploads")
    assert not lab.path(b"one", "uploads").exists()
    lab.put(offered, (b"one",))
    assert not lab.uploads.condemn(key, lab.now + DAY)
    lab.desk.sweep()
    assert lab.confirm((b"one",), area="uploads") == [3]


def test_what_a_sweep_is_removing_is_not_said_to_be_stored(make: Callable[..., Lab]) -> None:
    """It was condemned between the two looks of an offer, and its removal takes long."""
    lab = make()
    lab.upload((b"one",), area="uploads")
    key = content_key("uploads", ROOM, blake3(b"one").hexdigest())
    lab.offer((b"one",), area="uploads", again=True)
    with lab.store.database.write() as writer:
        writer.execute("DELETE FROM expected")
    assert lab.uploads.condemn(key, lab.now + DAY)
    row = ExpectedRow(key=key, device=OWNER, room=ROOM, area="uploads", size=3, asked=0.0)
    ContentTable(lab.store.database).expect([row], quota=Quota())
    assert lab.confirm((b"one",), area="uploads") == [None]
    lab.put(lab.offer((b"one",), area="uploads", again=True), (b"one",))
    assert lab.confirm((b"one",), area="uploads") == [3]
    lab.desk.sweep()
    assert lab.path(b"one", "uploads").exists()


def test_what_somebody_has_links_for_keeps_nothing_else_from_being_swept(
    make: Callable[..., Lab],
) -> None:
    lab = make()
    lab.upload((b"one",), area="uploads")
    lab.now += timedelta(minutes=1)
    lab.upload((b"two",), area="uploads")
    lab.now += 1.1 * DAY
    (lie,) = named((b"one",))
    lie = msgspec.structs.replace(lie, size=1)
    lab.desk.offer_contents(OWNER, OfferContents(room=ROOM, area="uploads", contents=(lie,)))
    key = content_key("uploads", ROOM, blake3(b"two").hexdigest())
    assert lab.uploads.stored_before("uploads", lab.now - DAY, limit=1) == [key]
    assert lab.desk.sweep() == 1


def test_who_never_comes_back_leaves_what_counts_and_goes(make: Callable[..., Lab]) -> None:
    lab = make()
    lab.put(lab.offer(area="uploads"), DATAS)
    lab.offer((b"never sent",), area="uploads")
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == sum(map(len, DATAS))
    lab.now += 1.1 * DAY
    lab.desk.sweep()
    assert lab.uploads.used(ROOM).size == 0
    assert not lab.path(b"one", "uploads").exists()


def test_what_is_being_completed_in_parts_is_waited_for(lab: Lab) -> None:
    """Nobody is told that it isn't kept, nor of what wasn't compared yet."""
    digest = blake3(b"one").hexdigest()
    request = RequestUpload(room=ROOM, area="rooms", blake3=digest, size=3)
    told = lab.desk.request_upload(OTHER, request)
    links = lab.offer((b"one",))
    assert lacking(links) == [True]
    lab.uploads.set_state(told.upload_id, "completing", now=lab.now)
    with lab.desk._turns.of(told.key):
        for ask in (lab.offer, lab.confirm):
            with pytest.raises(Busy, match="in use"):
                ask((b"one",))
    lab.put(links, (b"one",))
    contents = named((b"one",))
    with pytest.raises(MustCompare):
        lab.desk.confirm_contents(
            OWNER, ConfirmContents(room=ROOM, area="rooms", contents=contents), compare=False
        )
    # Its completing was cut off, and what is there is compared once more.
    assert lab.confirm((b"one",)) == [3]
    assert lacking(lab.offer((b"one",))) == [False]
    lab.uploads.set_state(told.upload_id, "completing", now=lab.now)
    lab.path(b"one").write_bytes(b"0ne")
    read_here = lab.desk._digest is not None  # in a bucket, readers find out
    assert lacking(lab.offer((b"one",))) == [read_here]


def test_a_room_has_not_any_number_of_files(make: Callable[..., Lab]) -> None:
    lab = make(files=3)
    lab.upload((b"one", b"two"))
    with pytest.raises(QuotaExceeded, match="may keep 3 files on the server and has 2; 1 more"):
        lab.offer((b"three", b"four"))
    lab.upload((b"three",))
    assert lab.uploads.used(ROOM) == Usage(size=11, files=3)
    request = RequestUpload(room=ROOM, area="rooms", blake3=blake3(b"4").hexdigest(), size=1)
    with pytest.raises(QuotaExceeded, match="3 files"):
        lab.desk.request_upload(OWNER, request)
    assert lacking(lab.offer((b"one", b"two", b"three"))) == [False] * 3


def test_a_store_that_is_away(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.put(lab.offer())

    def away(_: object) -> list[StoredObject | None]:
        raise StorageUnreachable(store="it", why="it is away")

    monkeypatch.setattr(lab, "heads", away)
    with pytest.raises(StorageUnreachable):
        lab.confirm()
    lab.now += 1.1 * DAY
    lab.desk.sweep()  # has to wait
    monkeypatch.undo()
    assert lab.confirm() == [len(data) for data in DATAS]


def test_an_upload_in_parts_of_the_same_content(make: Callable[..., Lab]) -> None:
    lab = make()
    told = lab.desk.request_upload(
        OTHER, RequestUpload(room=ROOM, area="rooms", blake3=named((b"one",))[0].blake3, size=3)
    )
    lab.upload((b"one",))
    part = {"number": 1, "size": 3, "sha256": hashlib.sha256(b"one").digest()}
    request = msgspec.convert({"upload_id": told.upload_id, "parts": [part]}, CompleteUpload)
    assert lab.desk.complete_upload(OTHER, request).size == 3
    assert lab.confirm((b"one",)) == [3]
