"""S3 on a real server; failures that a good server doesn't show, on one that is made to."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qsl

import msgspec
import pytest

from sleap_rtc.errors import (
    Damaged,
    DataError,
    OutOfSpace,
    PartsMissing,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.storage import s3
from sleap_rtc.storage.checksums import checksum_of
from sleap_rtc.storage.objects import MIN_PART, ObjectStore, Upload
from sleap_rtc.storage.s3 import ATTEMPTS, Bucket, S3Store
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.seaweed import ADMIN, READER, SeaweedServer
from sleap_rtc.testing.store_conformance import CHECKS, part_of, sent

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
@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_wrong_is_put_right(
    seaweed: SeaweedServer, hours: int, request: pytest.FixtureRequest
) -> None:
    bucket, off = f"clocks{hours % 24}", timedelta(hours=hours)
    seaweed.make_bucket(bucket)
    store = S3Store(seaweed.bucket(bucket), lambda: ADMIN, clock=lambda: datetime.now(UTC) + off)
    request.addfinalizer(store.close)
    upload = store.begin("a", size=5, part_size=MIN_PART)
    part = sent(store, upload, *part_of(upload, 1, b"hello"))
    assert store.complete(upload, [part]).size == 5


@pytest.mark.slow
def test_a_link_ends(seaweed: SeaweedServer) -> None:
    seaweed.make_bucket("links").create("a", b"1")
    before = datetime.now(UTC) - timedelta(seconds=90)
    store = S3Store(seaweed.bucket("links"), lambda: ADMIN, clock=lambda: before)
    connections = Connections()
    assert connections.send(store.download_request("a", seconds=60)).status == 403
    assert connections.send(store.download_request("a", seconds=600)).status == 200
    connections.close()


class Script:
    """A server that gives one prepared answer after the other, then closes."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.questions: list[tuple[str, str, dict[str, str]]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                path, _, query = self.path.partition("?")
                script.questions.append((self.command, path, dict(parse_qsl(query))))
                status, body = script.answers.pop(0)
                if status == 0:  # no answer at all
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("etag", '"abc"')
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - by http.server

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.waits: list[float] = []
        self.connections = Connections()

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(method, path) for method, path, _ in self.questions]

    def store(self) -> S3Store:
        endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        return S3Store(
            Bucket(name="b", endpoint=endpoint),
            lambda: ADMIN,
            connections=self.connections,
            wait=self.waits.append,
            chance=lambda: 1.0,
        )


@pytest.fixture
def script() -> Iterator[Script]:
    made = Script()
    thread = Thread(target=made.server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.connections.close()
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def failing(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()


UPLOAD = Upload(key="k", id="u", size=5, part_size=MIN_PART)
PART = part_of(UPLOAD, 1, b"hello")[0]
LISTED = b"""<ListPartsResult><Part><PartNumber>1</PartNumber><ETag>"e"</ETag><Size>5</Size></Part>
</ListPartsResult>"""


def test_what_passes_is_tried_again_after_growing_waits(script: Script) -> None:
    script.answers = [(503, failing("SlowDown")), (0, b""), (500, b""), (200, b"x")]
    assert script.store().read("k", limit=5) == b"x"
    assert script.waits == [0.05, 0.1, 0.2]


def test_what_doesn_t_pass_ends_with_its_reason(script: Script) -> None:
    script.answers = [(503, failing("SlowDown"))] * ATTEMPTS
    with pytest.raises(StorageUnreachable, match="SlowDown"):
        script.store().read("k", limit=5)
    script.answers = [(0, b"")] * ATTEMPTS
    with pytest.raises(StorageUnreachable):
        script.store().create("k", b"")
    script.answers = [(507, b"")]
    with pytest.raises(OutOfSpace):
        script.store().create("k", b"")
    script.answers = [(301, failing("PermanentRedirect"))] * 2  # what pins parts was asked first
    with pytest.raises(StorageRefused, match="PermanentRedirect"):
        script.store().begin("k", size=1, part_size=MIN_PART)
    assert script.answers == []


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


def test_a_long_list_is_read_in_pages(script: Script) -> None:
    first = b"""<R><Part><PartNumber>1</PartNumber><ETag>e</ETag><Size>5</Size>
    <ChecksumSHA256>!</ChecksumSHA256></Part><IsTruncated>true</IsTruncated>
    <NextPartNumberMarker>1</NextPartNumberMarker></R>"""
    script.answers = [(200, first), (200, LISTED.replace(b">1<", b">2<"))]
    assert [part.number for part in script.store().parts(UPLOAD)] == [1, 2]
    objects = b"<Contents><Key>%d</Key><Size>1</Size><LastModified>?</LastModified></Contents>"
    more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    script.answers = [
        (200, b"<R>" + objects % 1 + more + b"</R>"),
        (200, b"<R>" + objects % 2 + b"</R>"),
    ]
    assert [found.key for found in script.store().keys("")] == ["1", "2"]


def test_a_list_without_an_end_is_refused(script: Script) -> None:
    page = (
        b"<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>"
        b"<IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>%s</NextContinuationToken></ListBucketResult>"
    )
    script.answers = [(200, page % token) for token in (b"1", b"2", b"3", b"2")]
    found = script.store().keys("")
    assert [next(found).key for _ in range(4)] == ["a"] * 4
    with pytest.raises(DataError, match="no end"):
        next(found)
    assert len(script.asked) == 4


def test_where_a_bucket_is() -> None:
    assert Bucket(name="b", region="eu-west-1").url("k") == "https://b.s3.eu-west-1.amazonaws.com/k"
    assert Bucket(name="b.c").url("k") == "https://s3.us-east-1.amazonaws.com/b.c/k"
    own = Bucket(name="b", endpoint="http://in:1/", public_endpoint="https://out")
    assert own.url("k") == "http://in:1/b/k"
    assert own.url("k", public=True) == "https://out/b/k"
    assert own.url() == "http://in:1/b"


def listing(*keys: str, token: str = "") -> bytes:
    objects = "".join(f"<Contents><Key>{k}</Key><Size>1</Size></Contents>" for k in keys)
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    return f"<R>{objects}{more if token else ''}</R>".encode()


def test_a_list_begins_where_it_is_needed(script: Script) -> None:
    """And what it doesn't have before its keys are all later is asked about by itself."""
    keys = [f"r/{number}" for number in range(100, 140)]
    script.answers = [
        (200, listing(*keys[:30], token="more")),
        (200, listing("r/13", *keys[30:38], "r/14", token="even more")),
        (404, b""),
        (200, b"x"),
    ]
    found = script.store().heads(keys)
    assert [each is not None for each in found].count(True) == 39
    (_, _, first), (_, _, second), *heads = script.questions
    assert (first["start-after"], first["max-keys"], first["prefix"]) == ("r/10", "40", "r/1")
    assert second["continuation-token"] == "more"
    assert not {"start-after", "max-keys"} & set(second)
    assert {method for method, _, _ in heads} == {"HEAD"}
    assert {path for _, path, _ in heads} == {"/b/r/138", "/b/r/139"}


@pytest.mark.slow
def test_many_are_looked_for_by_a_list(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is too long, and then not again."""
    store = seaweed.make_bucket("many-heads")
    keys = [f"r/{number}" for number in range(60)]
    for number in range(0, 60, 2):
        store.create(keys[number], b"x" * number)
    alone: list[str] = []
    head = store.head
    monkeypatch.setattr(store, "head", lambda key: alone.append(key) or head(key))
    expected = [None if number % 2 else number for number in range(60)]

    def sizes() -> list[int | None]:
        return [None if found is None else found.size for found in store.heads(keys)]

    assert (sizes(), alone) == (expected, [])
    monkeypatch.setattr(s3, "_PAGE", 5)
    assert sizes() == expected
    assert 0 < len(alone) < 60
    alone.clear()
    assert sizes() == expected
    assert len(alone) == 60
