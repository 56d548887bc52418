"""S3 on a real server; failures that a good server doesn't show, on one that is made to."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from sleap_rtc.errors import (
    Damaged,
    DataError,
    PartsMissing,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.storage.bucket import ATTEMPTS
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import MIN_PART, ObjectStore, Upload
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.seaweed import ADMIN, READER, SeaweedServer
from sleap_rtc.testing.store_conformance import CHECKS, part_of

from .scripted import Script, failing

Check = Callable[[ObjectStore], None]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_s3_does_what_every_store_does(check: Check, seaweed: SeaweedServer) -> None:
    check(seaweed.make_bucket(check.__name__.replace("_", "-")[:50]))


@pytest.mark.slow
def test_what_credentials_don_t_allow_is_refused(seaweed: SeaweedServer) -> None:
    seaweed.make_bucket("rights").create("a", b"1")
    reader = seaweed.store("rights", READER)
    assert reader.read("a", limit=1) == b"1"
    with pytest.raises(StorageRefused, match="AccessDenied"):
        reader.create("b", b"1")
    stranger = seaweed.store("rights", Credentials(access_key="nobody", secret_key="x"))
    with pytest.raises(StorageRefused) as caught:
        stranger.read("a", limit=1)
    assert "clocks" in caught.value.hint_text
    with pytest.raises(StorageRefused, match="NoSuchBucket"):
        list(seaweed.store("no-such-bucket").keys(""))


@pytest.mark.slow
def test_a_link_ends(seaweed: SeaweedServer) -> None:
    seaweed.make_bucket("links").create("a", b"1")
    before = datetime.now(UTC) - timedelta(seconds=90)
    store = S3Store(seaweed.bucket("links"), lambda: ADMIN, clock=lambda: before)
    connections = Connections()
    assert connections.send(store.download_request("a", seconds=60)).status == 403
    assert connections.send(store.download_request("a", seconds=600)).status == 200
    connections.close()


UPLOAD = Upload(key="k", id="u", size=5, part_size=MIN_PART)
PART = part_of(UPLOAD, 1, b"hello")[0]
LISTED = b"""<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>"e"</ETag><Size>5</Size></Part>
</ListPartsResult>"""


def test_after_a_lost_answer_the_object_tells_who_made_it(script: Script) -> None:
    script.answers = [(0, b""), (412, b""), (200, b"mine")]
    assert script.store().create("k", b"mine")
    script.answers = [(500, b""), (412, b""), (200, b"his!")]
    assert not script.store().create("k", b"mine")
    script.answers = [(412, b"")]
    assert not script.store().create("k", b"mine")
    script.answers = [(409, failing("ConditionalRequestConflict")), (412, b"")]
    assert not script.store().create("k", b"mine")
    assert script.answers == []


def test_completing_that_says_200_and_fails_is_a_failure(script: Script) -> None:
    broken = [(200, LISTED)] + [(200, failing("InternalError"))] * ATTEMPTS
    script.answers = list(broken)
    with pytest.raises(StorageUnreachable, match="InternalError"):
        script.store().complete(UPLOAD, [PART])
    done = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
    script.answers = [*broken[:2], (200, done), (200, b"hello")]
    assert script.store().complete(UPLOAD, [PART]).size == 5
    assert script.answers == []


def test_completing_whose_answer_got_lost_is_done(script: Script) -> None:
    script.answers = [(200, LISTED), (0, b""), (404, failing("NoSuchUpload")), (200, b"hello")]
    assert script.store().complete(UPLOAD, [PART]).size == 5
    script.answers = [(200, LISTED), (404, failing("NoSuchUpload")), (404, b"")]
    with pytest.raises(UnknownUpload):
        script.store().complete(UPLOAD, [PART])
    assert script.answers == []


def test_a_store_that_lies_about_the_whole_is_not_believed(script: Script) -> None:
    lying = b"<R><ETag>e</ETag><ChecksumSHA256>AAAA-1</ChecksumSHA256></R>"
    script.answers = [(200, LISTED), (200, lying)]
    with pytest.raises(Damaged, match="checksum"):
        script.store().complete(UPLOAD, [PART])
    script.answers = [(200, LISTED), (200, b"<R><ETag>e</ETag></R>"), (200, b"hell")]
    with pytest.raises(Damaged, match="4 bytes"):
        script.store().complete(UPLOAD, [PART])


def test_with_etags_the_store_is_asked_at_once(script: Script) -> None:
    """What parts it has is asked for only when it refuses, to say which are lacking."""
    upload = msgspec.structs.replace(UPLOAD, checksum="crc32c")
    part = msgspec.structs.replace(part_of(upload, 1, b"hello")[0], etag="e")
    composite = base64.b64encode(checksum_of("crc32c", part.crc32c or b"")).decode()
    done = "<R><ETag>e</ETag><ChecksumCRC32C>%s</ChecksumCRC32C></R>"
    script.answers = [(200, (done % f"{composite}-1").encode()), (200, b"hello")]
    assert script.store().complete(upload, [part]).size == 5
    script.answers = [(200, (done % "AAAAAA==").encode()), (200, b"hello")]  # of the whole
    assert script.store().complete(upload, [part]).size == 5
    script.answers = [(200, (done % "AAAAAA==-1").encode())]
    with pytest.raises(Damaged, match="checksum"):
        script.store().complete(upload, [part])
    other = msgspec.structs.replace(part, etag="another")
    script.answers = [(400, failing("InvalidPart")), (200, LISTED)]
    with pytest.raises(PartsMissing, match=": 1"):
        script.store().complete(upload, [other])
    script.answers = [(400, failing("InvalidPart")), (200, LISTED)]
    with pytest.raises(StorageRefused, match="InvalidPart"):  # although it has it
        script.store().complete(upload, [part])
    script.answers = [(400, failing("InvalidPart")), (404, failing("NoSuchUpload")), (200, b"h")]
    with pytest.raises(Damaged, match="1 bytes"):
        script.store().complete(upload, [part])
    assert script.answers == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<R><Part><PartNumber>x</PartNumber><Size>5</Size><ETag/></Part></R>",
        b"<R><Part><PartNumber>1</PartNumber><ETag>e</ETag></Part></R>",
        b"<R><IsTruncated>true</IsTruncated><NextPartNumberMarker></NextPartNumberMarker></R>",
    ],
)
def test_answers_that_make_no_sense_are_refused(script: Script, body: bytes) -> None:
    script.answers = [(200, body)]
    with pytest.raises(DataError):
        script.store().parts(UPLOAD)


def test_a_long_list_of_parts_is_read_in_pages(script: Script) -> None:
    first = b"""<R><Part><PartNumber>1</PartNumber><ETag>e</ETag><Size>5</Size>
    <ChecksumSHA256>!</ChecksumSHA256></Part><IsTruncated>true</IsTruncated>
    <NextPartNumberMarker>1</NextPartNumberMarker></R>"""
    script.answers = [(200, first), (200, LISTED.replace(b">1<", b">2<"))]
    assert [part.number for part in script.store().parts(UPLOAD)] == [1, 2]
