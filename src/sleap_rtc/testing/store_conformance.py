"""What every object store must do, as checks that a test module runs on its own store.

The store is empty at first, or nobody else uses it, and the links that it makes can be reached::

    @pytest.mark.parametrize("check", CHECKS)
    def test_the_store_does_what_every_store_does(check, store):
        check(store)
"""

# ruff: noqa: S101 - these are tests
from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, get_args

import msgspec
import pytest

from sleap_rtc.errors import DataError, InvalidName, PartsMissing, UnknownUpload
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import (
    MIN_PART,
    Checksum,
    Content,
    ObjectStore,
    Part,
    Upload,
    etag_of,
)
from sleap_rtc.storage.wire import Answer, Connections

_RACERS = 8
_POLYNOMIAL: Final = 0x11EDC6F41
"""What CRC32C divides by."""
CONTENT = b"first" * (MIN_PART // 5) + b"the last part"


def part_of(upload: Upload, number: int, content: bytes = CONTENT) -> tuple[Part, bytes]:
    """A part of the content, and its bytes."""
    at = upload.offset(number)
    data = content[at : at + upload.length(number)]
    return Part.of(upload, number, checksum_of(upload.checksum, data)), data


def forged(data: bytes) -> bytes:
    """Other bytes of the same length, at least 5, and the same CRC32C.

    A CRC is a remainder: what is added here is what it is divided by, bits in its order.
    """
    bits = f"{_POLYNOMIAL:033b}"[::-1]
    added = int(bits, 2).to_bytes(5, "little")
    return bytes(a ^ b for a, b in zip(data, added, strict=False)) + data[5:]


def send(store: ObjectStore, upload: Upload, part: Part, data: bytes) -> Answer:
    """Send a part's bytes, whatever they are."""
    connections = Connections()
    try:
        request = store.part_requests(upload, [part])[0]
        return connections.send(request, data)
    finally:
        connections.close()


def sent(store: ObjectStore, upload: Upload, part: Part, data: bytes) -> Part:
    """Send a part; it comes back with what its sender is told of it."""
    answer = send(store, upload, part, data)
    assert answer.ok, answer
    return msgspec.structs.replace(part, etag=etag_of(answer.headers["etag"]))


def upload_whole(store: ObjectStore, key: str, content: bytes = CONTENT) -> Sequence[Part]:
    """Upload a content and complete it."""
    upload = store.begin(key, size=len(content), part_size=MIN_PART)
    numbers = range(1, upload.part_count + 1)
    parts = [sent(store, upload, *part_of(upload, number, content)) for number in numbers]
    store.complete(upload, parts)
    return parts


def fetch(store: ObjectStore, key: str, **headers: str) -> Answer:
    """Read an object as the holder of a link would."""
    connections = Connections()
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return connections.send(store.download_request(key), headers=named, limit=len(CONTENT))
    finally:
        connections.close()


def check_an_upload_in_parts_becomes_an_object(store: ObjectStore) -> None:
    """Parts are listed as they come; the object is there when it is completed, and not before."""
    upload = store.begin("a/whole", size=len(CONTENT), part_size=MIN_PART)
    assert store.parts(upload) == []
    first, data = part_of(upload, 1)
    last, rest = part_of(upload, 2)
    last = sent(store, upload, last, rest)
    assert [(p.number, p.size) for p in store.parts(upload)] == [(2, len(rest))]
    assert store.head("a/whole") is None
    with pytest.raises(PartsMissing, match=": 1"):
        store.complete(upload, [msgspec.structs.replace(first, etag="0" * 32), last])
    assert send(store, upload, first, data).ok
    first = sent(store, upload, first, data)  # again, as after an answer that got lost
    assert [p.number for p in store.parts(upload)] == [1, 2]
    done = store.complete(upload, [last, first])
    assert (done.key, done.size) == ("a/whole", len(CONTENT))
    assert store.complete(upload, [first, last]).etag == done.etag
    found = store.head("a/whole")
    assert found is not None
    assert found.etag == done.etag
    assert fetch(store, "a/whole").body == CONTENT
    with pytest.raises(UnknownUpload):
        store.parts(upload)


def check_a_link_is_good_for_its_checksum(store: ObjectStore) -> None:
    """Other bytes and other lengths are refused, and what was there stays."""
    for checksum in get_args(Checksum):
        _check_pins(store, checksum)


def _check_pins(store: ObjectStore, checksum: Checksum) -> None:
    upload = store.begin("a/pinned", size=len(CONTENT), part_size=MIN_PART, checksum=checksum)
    assert upload.checksum == checksum
    part, data = part_of(upload, 2)
    other = b"X" + data[1:]
    assert send(store, upload, part, other).status in (400, 422)
    request = store.part_requests(upload, [part])[0]
    connections = Connections()
    try:
        longer = {**request.headers, "content-length": str(len(data) + 1)}
        changed = type(request)(request.method, request.url, longer, request.expires)
        assert not connections.send(changed, data + b"X").ok
        assert store.parts(upload) == []
        assert connections.send(request, data).ok
        # The link itself can't be made to serve another part, or to read.
        worse = request.url.replace("partNumber=2", "partNumber=1")
        worse = worse if worse != request.url else request.url[:-2]
        changed = type(request)("PUT", worse, request.headers, request.expires)
        assert connections.send(changed, data).status == 403
        changed = type(request)("GET", request.url, {}, request.expires)
        assert connections.send(changed).status == 403
    finally:
        connections.close()
    assert [p.number for p in store.parts(upload)] == [2]
    store.abort(upload)


def check_an_upload_given_up_is_gone(store: ObjectStore) -> None:
    """Its parts are gone, nothing more comes, and giving it up again is no error."""
    upload = store.begin("a/given-up", size=len(CONTENT), part_size=MIN_PART)
    part, data = part_of(upload, 2)
    request = store.part_requests(upload, [part])[0]
    store.abort(upload)
    store.abort(upload)
    connections = Connections()
    try:
        assert connections.send(request, data).status == 404
    finally:
        connections.close()
    with pytest.raises(UnknownUpload):
        store.parts(upload)
    parts = [msgspec.structs.replace(part_of(upload, n)[0], etag="0" * 32) for n in (1, 2)]
    with pytest.raises(UnknownUpload):
        store.complete(upload, parts)


def check_a_forged_part_is_never_in_the_object(store: ObjectStore) -> None:
    """Who stole a link can send another part of the same CRC32C, and gets nowhere by it."""
    key = "a/forged"
    content = b"what was packed" * 10
    other = forged(content)
    assert checksum_of("crc32c", other) == checksum_of("crc32c", content)
    assert other != content
    for order in ("before", "after", "both", "alone"):
        store.delete(key)
        upload = store.begin(key, size=len(content), part_size=MIN_PART)
        assert upload.checksum == "crc32c"
        part, data = part_of(upload, 1, content)
        mine = part
        if order in ("before", "both"):
            assert send(store, upload, part, other).ok
        if order != "alone":
            mine = sent(store, upload, part, data)
        if order != "before":
            theirs = sent(store, upload, part, other)
            assert theirs.etag != mine.etag
        if order == "alone":  # the sender's answer got lost, and so it names no ETag of the part
            mine = msgspec.structs.replace(part, etag="0" * 32)
        try:
            store.complete(upload, [mine])
        except PartsMissing:
            # The sender sends it anew, and gets through.
            assert order != "before"
            assert store.head(key) is None
            store.complete(upload, [sent(store, upload, part, data)])
        assert store.read(key, limit=len(content)) == content, order
        # Nor does the link lead anywhere after that.
        assert not send(store, upload, part, other).ok
        assert store.read(key, limit=len(content)) == content


def check_a_sender_that_knows_only_sha256(store: ObjectStore) -> None:
    """As versions before did it: no ETag is named, the checksum tells the bytes from others."""
    upload = store.begin("a/old", size=len(CONTENT), part_size=MIN_PART, checksum="sha256")
    parts = [part_of(upload, number) for number in (1, 2)]
    for part, data in parts:
        assert send(store, upload, part, forged(data)).status in (400, 422)
        assert send(store, upload, part, data).ok
    with pytest.raises(DataError, match="without its sha256"):
        store.part_requests(upload, [Part(number=1, size=MIN_PART, crc32c=bytes(4))])
    other = msgspec.structs.replace(parts[1][0], etag="0" * 32)
    with pytest.raises(PartsMissing, match=": 2"):
        store.complete(upload, [parts[0][0], other])
    assert store.complete(upload, [part for part, _ in parts]).size == len(CONTENT)
    assert fetch(store, "a/old").body == CONTENT


def check_completing_by_crc32c_needs_etags(store: ObjectStore) -> None:
    """Without them anybody's parts would do."""
    upload = store.begin("a/unnamed", size=len(CONTENT), part_size=MIN_PART)
    parts = [part_of(upload, number) for number in (1, 2)]
    for part, data in parts:
        assert send(store, upload, part, data).ok
    with pytest.raises(DataError, match="without the ETag"):
        store.complete(upload, [part for part, _ in parts])
    with pytest.raises(DataError, match="without its crc32c"):
        store.part_requests(upload, [Part(number=1, size=MIN_PART, sha256=bytes(32))])
    store.abort(upload)


def content_of(key: str, data: bytes) -> Content:
    """A content in one piece."""
    return Content(key=key, size=len(data), sha256=hashlib.sha256(data).digest())


def check_contents_in_one_piece(store: ObjectStore) -> None:
    """Several are offered, sent and confirmed at once; what isn't sent isn't there."""
    datas = {"c/1": b"one", "c/2": b"", "c/3": b"three" * 1000, "c/4": b"never sent"}
    contents = [content_of(key, data) for key, data in datas.items()]
    requests = store.offer(contents)
    connections = Connections()
    try:
        for request, data in list(zip(requests, datas.values(), strict=True))[:-1]:
            assert request is not None
            assert connections.send(request, data).ok
    finally:
        connections.close()
    found = store.confirm(contents)
    assert [None if each is None else each.size for each in found] == [3, 0, 5000, None]
    assert [None if each is None else each.key for each in store.heads(list(datas))] == [
        "c/1",
        "c/2",
        "c/3",
        None,
    ]
    assert fetch(store, "c/3").body == datas["c/3"]
    assert len(store.download_requests(list(datas))) == len(datas)


def check_a_content_is_exactly_its_bytes_and_stays(store: ObjectStore) -> None:
    """Other bytes are refused; what is there isn't replaced, unless that is what a link is for."""
    content, other = content_of("d/1", b"right"), content_of("d/1", b"wrong")
    request = store.content_request(content)
    connections = Connections()
    try:
        assert connections.send(request, b"wrong").status in (400, 422)
        longer = {**request.headers, "content-length": "6"}
        changed = type(request)(request.method, request.url, longer, request.expires)
        assert not connections.send(changed, b"right!").ok
        assert store.head("d/1") is None
        assert connections.send(request, b"right").ok
        assert connections.send(request, b"right").status == 412
        assert connections.send(store.content_request(other), b"wrong").status == 412
        assert store.read("d/1", limit=5) == b"right"
        (replacing,) = store.offer([other], replacing=True)
        assert replacing is not None
        assert connections.send(replacing, b"wrong").ok
        assert store.read("d/1", limit=5) == b"wrong"
    finally:
        connections.close()


def check_of_many_senders_of_one_content_all_are_right(store: ObjectStore) -> None:
    """Eight at once: each is told that it is there."""
    content, data = content_of("e/1", b"x" * 70_000), b"x" * 70_000
    barrier = threading.Barrier(_RACERS)

    def race(_: int) -> int:
        request = store.content_request(content)
        connections = Connections()
        try:
            barrier.wait()
            return connections.send(request, data).status
        finally:
            connections.close()

    with ThreadPoolExecutor(_RACERS) as pool:
        told = list(pool.map(race, range(_RACERS)))
    assert 200 in told
    assert set(told) <= {200, 409, 412}
    assert store.read("e/1", limit=70_000) == data


def check_an_empty_object(store: ObjectStore) -> None:
    """It has one part, of no bytes."""
    upload_whole(store, "a/empty", b"")
    found = store.head("a/empty")
    assert found is not None
    assert found.size == 0
    assert store.read("a/empty", limit=10) == b""


def check_ranges_of_one_content(store: ObjectStore) -> None:
    """A range pinned to an ETag is refused once the object is another."""
    upload_whole(store, "a/ranges", b"0123456789")
    found = store.head("a/ranges")
    assert found is not None
    pinned = {"range": "bytes=2-4", "if_match": f'"{found.etag}"'}
    answer = fetch(store, "a/ranges", **pinned)
    assert (answer.status, answer.body) == (206, b"234")
    assert answer.headers["content-range"] == "bytes 2-4/10"
    upload_whole(store, "a/ranges", b"9876543210")
    assert fetch(store, "a/ranges", **pinned).status == 412
    assert fetch(store, "a/none").status == 404


def check_small_objects(store: ObjectStore) -> None:
    """Made once, read with a bound, listed, deleted."""
    keys = ["b/2", "b/10", "b-1", "b/c/d", "b/c-d"]
    assert all(store.create(key, key.encode()) for key in keys)
    assert not store.create("b/2", b"another")
    assert store.read("b/2", limit=3) == b"b/2"
    with pytest.raises(DataError):
        store.read("b/2", limit=2)
    assert store.read("b/none", limit=2) is None
    assert {found.key for found in store.keys("b")} == set(keys)
    assert {found.key for found in store.keys("b/c")} == {"b/c-d", "b/c/d"}
    assert list(store.keys("none")) == []
    modified = next(iter(store.keys("b/2"))).modified
    assert modified is not None
    assert abs((datetime.now(UTC) - modified).total_seconds()) < 60
    store.delete("b/2")
    store.delete("b/2")
    assert store.head("b/2") is None
    assert store.create("b/2", b"again")


def check_of_many_racers_one_wins(store: ObjectStore) -> None:
    """Create if absent, eight at once."""
    barrier = threading.Barrier(_RACERS)

    def race(number: int) -> bool:
        barrier.wait()
        return store.create("race", str(number).encode())

    with ThreadPoolExecutor(_RACERS) as pool:
        won = list(pool.map(race, range(_RACERS)))
    assert won.count(True) == 1
    assert store.read("race", limit=9) == str(won.index(True)).encode()


def check_names_and_sizes_are_refused(store: ObjectStore) -> None:
    """What would leave its place, or what no store takes."""
    for key in ("../up", "a//b", ".hidden", "a/../../b"):
        with pytest.raises(InvalidName):
            store.begin(key, size=1, part_size=MIN_PART)
        with pytest.raises(InvalidName):
            store.create(key, b"")
        with pytest.raises(InvalidName):
            store.download_request(key)
        with pytest.raises(InvalidName):
            store.offer([content_of(key, b"1")])
    with pytest.raises(DataError):
        store.begin("a", size=1, part_size=1)


CHECKS = (
    check_an_upload_in_parts_becomes_an_object,
    check_a_link_is_good_for_its_checksum,
    check_an_upload_given_up_is_gone,
    check_a_forged_part_is_never_in_the_object,
    check_a_sender_that_knows_only_sha256,
    check_completing_by_crc32c_needs_etags,
    check_contents_in_one_piece,
    check_a_content_is_exactly_its_bytes_and_stays,
    check_of_many_senders_of_one_content_all_are_right,
    check_an_empty_object,
    check_ranges_of_one_content,
    check_small_objects,
    check_of_many_racers_one_wins,
    check_names_and_sizes_are_refused,
)
"""Every check, for a test that is parametrised with them."""
