"""Parts and objects over real HTTP: what is served, and what is refused."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.client
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from blake3 import blake3

from sleap_rtc.errors import TooManyRequests
from sleap_rtc.server import api, guarded
from sleap_rtc.server import objects as module
from sleap_rtc.storage.objects import MIN_PART, Part, SignedRequest
from sleap_rtc.storage.service import (
    Aborted,
    AbortUpload,
    ConfirmContents,
    ContentsConfirmed,
    ContentsOffered,
    DownloadTold,
    LinksTold,
    NamedContent,
    OfferContents,
    RenewUpload,
    RequestDownload,
    RequestLinks,
    RequestsTold,
    UploadStatus,
)
from sleap_rtc.storage.tickets import Ticket, unseal

from .conftest import Device, Place, send, use

DATA = bytes(range(251)) * 40_000  # two parts


def download(device: Device, data: bytes) -> DownloadTold:
    digest = blake3(data).hexdigest()
    request = RequestDownload(room=device.room, area="rooms", blake3=digest)
    return device.api.ask("/api/request-download", DownloadTold, request)


@pytest.fixture(scope="module")
def stored(place: Place) -> DownloadTold:
    place.owner.upload(DATA)
    return download(place.owner, DATA)


def ticket(device: Device, data: bytes, **pinned: Any) -> SignedRequest:
    told = device.ask(data)
    given = {"number": 1, "size": len(data), "sha256": hashlib.sha256(data).digest()}
    part = Part(**(given | pinned))
    request = RenewUpload(upload_id=told.upload_id, parts=(part,))
    return device.api.ask("/api/renew-upload", RequestsTold, request).requests[0]


# ── objects go out ───────────────────────────────────────────────────────────


def test_the_whole(place: Place, stored: DownloadTold) -> None:
    assert stored.size == len(DATA)
    assert stored.request.url.startswith(place.address.url + "/storage/")
    found = use(stored.request)
    assert found.status == 200
    assert found.body == DATA
    assert found.headers["etag"] == f'"{stored.etag}"'
    assert found.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("ranges", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000000-5000000", 1_000_000, 5_000_001),
        ("bytes=-5", len(DATA) - 5, len(DATA)),
        ("bytes=10000000-99999999999", 10_000_000, len(DATA)),
    ],
)
def test_a_range(stored: DownloadTold, ranges: str, start: int, end: int) -> None:
    found = use(stored.request, range=ranges, if_match=f'"{stored.etag}"')
    assert found.status == 206
    assert found.body == DATA[start:end]
    assert found.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


def test_ranges_that_there_are_not(stored: DownloadTold) -> None:
    found = use(stored.request, range=f"bytes={len(DATA)}-")
    assert found.status == 416
    assert found.headers["content-range"] == f"bytes */{len(DATA)}"
    assert use(stored.request, range="bytes=5-2").status == 200


def test_conditions(stored: DownloadTold) -> None:
    assert use(stored.request, if_match='"another"').status == 412
    found = use(stored.request, if_none_match=f'"{stored.etag}"')
    assert (found.status, found.body) == (304, b"")


def test_head(stored: DownloadTold) -> None:
    head = msgspec.structs.replace(stored.request, method="HEAD")
    found = use(head)
    assert (found.status, found.body) == (200, b"")
    assert found.headers["content-length"] == str(len(DATA))


def test_several_read_at_once(stored: DownloadTold) -> None:
    def piece(number: int) -> bytes:
        start = number * 1_000_000
        return use(stored.request, range=f"bytes={start}-{start + 999_999}").body

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(piece, range(11))) == DATA


def test_an_object_that_is_gone(place: Place) -> None:
    place.owner.upload(b"short-lived")
    told = download(place.owner, b"short-lived")
    root = place.info.data_dir / "storage" / "objects"
    (path,) = root.rglob(blake3(b"short-lived").hexdigest())
    path.unlink()
    assert use(told.request).status == 404


def gone(place: Place) -> float:
    text = send(place.address, "GET", "/metrics").body.decode()
    mark = 'sleap_rtc_requests_total{kind="http_get_object",outcome="gone"} '
    return float((text.partition(mark)[2] or "0").split()[0])


@pytest.mark.parametrize("closes", [True, False], ids=["goes away", "stays and reads nothing"])
def test_whoever_reads_nothing_is_let_go(
    place: Place, stored: DownloadTold, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    monkeypatch.setattr(module, "STALL_S", 30 if closes else 0.2)
    before = gone(place)
    parts = urlsplit(stored.request.url)
    with contextlib.closing(socket.socket()) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        rude.connect((place.address.host, place.address.port))
        rude.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert rude.recv(10)
        if closes:
            rude.close()
        for _ in range(1_200):
            if gone(place) > before:
                break
            threading.Event().wait(0.05)
        assert gone(place) == before + 1
    assert use(stored.request, range="bytes=0-0").status == 206


# ── tickets ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path[:-1] + ("A" if path[-1] != "A" else "B"),
        lambda path: path.replace("/storage/", "/storage/A"),
        lambda path: path.partition(".")[0],
        lambda path: path.partition(".")[0] + ".",
        lambda path: "/storage/" + "x" * 10_000,
        lambda path: "/storage/",
        lambda path: "/storage/../../../etc/passwd",
        lambda path: "/storage/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        lambda path: "/storage/é.x".encode().decode("latin-1"),
    ],
)
def test_forged_tickets(place: Place, stored: DownloadTold, change: Any) -> None:
    path = change(urlsplit(stored.request.url).path)
    connection = socket.create_connection((place.address.host, place.address.port))
    with contextlib.closing(connection):
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode("latin-1"))
        reply = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert reply.split(b" ")[1] in (b"403", b"400")
    assert b"root:" not in reply


def test_a_ticket_is_for_one_method(place: Place, stored: DownloadTold) -> None:
    put = msgspec.structs.replace(stored.request, method="PUT")
    assert use(put, b"x").error["code"] == "not_permitted"
    get = msgspec.structs.replace(ticket(place.owner, b"some"), method="GET", headers={})
    assert use(get).status == 403
    for method in ("DELETE", "POST", "OPTIONS"):
        assert use(msgspec.structs.replace(stored.request, method=method)).status == 405


def test_a_ticket_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ticket(place.owner, b"late")
    later = put.expires + dt.timedelta(seconds=1)

    def opened(token: str, key: bytes, *, method: str, now: dt.datetime) -> Ticket:
        assert now < later
        return unseal(token, key, method=method, now=later)

    monkeypatch.setattr("sleap_rtc.storage.folder.unseal", opened)
    reply = use(put, b"late")
    assert (reply.status, "expired" in reply.error["message"]) == (403, True)
    monkeypatch.undo()
    assert use(put, b"late").status == 200


# ── parts come in ────────────────────────────────────────────────────────────


def test_a_part(place: Place) -> None:
    put = ticket(place.owner, b"part")
    reply = use(put, b"part")
    assert reply.status == 200
    assert reply.headers["etag"] == f'"{hashlib.sha256(b"part").hexdigest()}"'
    assert use(put, b"part").status == 200  # once more is no mistake


def test_other_bytes_than_were_announced(place: Place) -> None:
    put = ticket(place.owner, b"right")
    reply = use(put, b"wrong")
    assert (reply.status, reply.error["code"]) == (400, "damaged")
    for body in (b"righ", b"right!", b""):
        told = use(put, body, content_length=str(len(body)))
        assert (told.status, told.error["code"]) == (400, "data")
    assert use(put, b"right").status == 200


def test_a_part_without_a_length(place: Place) -> None:
    put = ticket(place.owner, b"chunked")
    path = urlsplit(put.url).path
    reply = send(place.address, "PUT", path, iter([b"chun", b"ked"]))
    assert (reply.status, "announces no bytes" in reply.error["message"]) == (400, True)


def test_a_part_that_breaks_off_counts_for_nothing(place: Place) -> None:
    data = b"x" * 200_000
    told = place.owner.ask(data)
    put = place.owner.tickets(told, data)[0]
    path = urlsplit(put.url).path
    with socket.create_connection((place.address.host, place.address.port)) as cut:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\ncontent-length: {len(data)}\r\n\r\n"
        cut.sendall(head.encode() + data[:100_000])
    status = f"/api/upload-status/{told.upload_id}"
    assert place.owner.api.ask(status, UploadStatus).parts == ()
    # The server may still be about to notice: the same part is tried until it is free.
    for _ in range(1_200):
        reply = use(put, data)
        if reply.status != 409:
            break
        threading.Event().wait(0.05)
    assert reply.status == 200
    place.owner.complete(told, data)
    assert use(download(place.owner, data).request).body == data


def test_the_same_part_from_two_at_once(place: Place) -> None:
    data = b"y" * MIN_PART
    put = ticket(place.owner, data)
    with ThreadPoolExecutor(4) as pool:
        found = sorted(pool.map(lambda _: use(put, data).status, range(4)))
    assert found[0] == 200
    assert set(found) <= {200, 409}
    assert use(put, data).status == 200


def test_a_part_of_what_was_given_up(place: Place) -> None:
    data = b"never mind"
    told = place.owner.ask(data)
    put = place.owner.tickets(told, data)[0]
    place.owner.api.ask("/api/abort-upload", Aborted, AbortUpload(upload_id=told.upload_id))
    reply = use(put, data)
    assert (reply.status, reply.error["code"]) == (404, "unknown_upload")


def test_a_large_refused_part_still_hears_why(place: Place) -> None:
    put = ticket(place.owner, b"z" * 600_000)
    other = msgspec.structs.replace(put, url=put.url + "x")
    assert use(other, b"z" * 600_000).status == 403


def test_too_many_at_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ticket(place.owner, b"busy")
    for limit in ("MAX_TRANSFERS", "MAX_TRANSFERS_EACH"):
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, 0)
            reply = use(put, b"busy")
        assert (reply.status, reply.error["code"]) == (429, "too_many_requests")
        assert int(reply.headers["retry-after"]) > 0
    assert use(put, b"busy").status == 200


def test_a_full_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put = ticket(place.owner, b"no room")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sleap_rtc.storage.folder.os.pwrite", full)
    reply = use(put, b"no room")
    assert (reply.status, reply.error["code"]) == (507, "out_of_space")
    monkeypatch.undo()
    assert use(put, b"no room").status == 200


def test_a_sender_that_stalls_is_let_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.2)
    put = ticket(place.owner, b"stalls here")
    path = urlsplit(put.url).path
    with socket.create_connection((place.address.host, place.address.port), timeout=60) as slow:
        slow.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\ncontent-length: 11\r\n\r\nst".encode())
        with contextlib.suppress(ConnectionError):
            assert slow.recv(1_000) == b""


def test_what_is_counted(place: Place, stored: DownloadTold) -> None:
    use(stored.request)
    text = send(place.address, "GET", "/metrics").body.decode()
    assert 'sleap_rtc_requests_total{kind="http_get_object",outcome="ok"}' in text
    assert 'sleap_rtc_storage_bytes_total{direction="in"}' in text
    assert 'sleap_rtc_storage_bytes_total{direction="out"}' in text
    assert place.lab.room not in text


def test_nothing_of_a_ticket_is_in_the_log(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    put = ticket(place.owner, b"quiet")
    use(put, b"loud!")
    told = capfd.readouterr()
    assert urlsplit(put.url).path.rpartition("/")[2] not in told.err + told.out


def test_its_folder_is_the_servers(place: Place) -> None:
    assert isinstance(place.info.data_dir, Path)
    assert (place.info.data_dir / "storage" / "key").stat().st_mode & 0o077 == 0


# ── contents in one piece ────────────────────────────────────────────────────


def offer(device: Device, datas: Sequence[bytes], **changes: Any) -> ContentsOffered:
    request = OfferContents(
        room=device.room, area="rooms", contents=tuple(map(named, datas)), **changes
    )
    return device.api.ask("/api/offer-contents", ContentsOffered, request)


def confirm(device: Device, datas: Sequence[bytes]) -> list[int | None]:
    request = ConfirmContents(room=device.room, area="rooms", contents=tuple(map(named, datas)))
    told = device.api.ask("/api/confirm-contents", ContentsConfirmed, request).stored
    return [None if each is None else each.size for each in told]


def named(data: bytes) -> NamedContent:
    sha256 = hashlib.sha256(data).digest()
    return NamedContent(blake3=blake3(data).hexdigest(), size=len(data), sha256=sha256)


def test_contents_go_in_one_piece_each(place: Place) -> None:
    datas = [b"whole one", b"whole two" * 10_000]
    first, second = offer(place.owner, datas).requests
    assert first is not None
    assert second is not None
    assert use(first, b"whole 0ne").status == 400
    assert use(first, datas[0] + b"X", content_length=str(len(datas[0]) + 1)).status == 400
    assert confirm(place.owner, datas) == [None, None]
    assert use(first, datas[0]).status == 200
    assert use(first, datas[0]).status == 412
    assert confirm(place.owner, datas) == [len(datas[0]), None]
    assert offer(place.owner, datas).requests[0] is None
    assert use(second, datas[1]).status == 200
    assert confirm(place.owner, datas) == [len(data) for data in datas]
    hashes = tuple(blake3(data).hexdigest() for data in (*datas, b"not there"))
    request = RequestLinks(room=place.owner.room, area="rooms", contents=hashes)
    links = place.owner.api.ask("/api/request-links", LinksTold, request).requests
    assert [use(link).body for link in links[:2]] == datas
    assert use(links[2]).status == 404


def test_a_part_that_trickles_in_doesnt_hold_its_upload_for_ever(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"a part, drop by drop"
    request = ticket(place.owner, data)
    with monkeypatch.context() as late:
        late.setattr(module, "WHOLE_S", -1.0)
        found = use(request, data)
        assert (found.status, b"took longer" in found.body) == (502, True)
    assert use(request, data).status == 200


def test_a_content_that_trickles_in_is_not_waited_for_longer_than_it_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"drop by drop"
    (request,) = offer(place.owner, [data]).requests
    assert request is not None
    with monkeypatch.context() as late:
        late.setattr(module, "WHOLE_S", -1.0)
        found = use(request, data)
        assert found.status == 502
        assert b"took longer" in found.body
    assert confirm(place.owner, [data]) == [None]
    assert use(request, data).status == 200
    assert confirm(place.owner, [data]) == [len(data)]


def test_who_holds_tickets_goes_on_on_one_connection(place: Place) -> None:
    datas = [b"kept %d" % number for number in range(5)]
    requests = [request for request in offer(place.owner, datas).requests if request is not None]
    connection = http.client.HTTPConnection(place.address.host, place.address.port, timeout=60)
    with contextlib.closing(connection):
        connection.connect()
        sock = connection.sock
        for request, data in zip([*requests, requests[0]], [*datas, datas[0]], strict=True):
            connection.request("PUT", urlsplit(request.url).path, data, request.headers)
            answer = connection.getresponse()
            answer.read()
            assert connection.sock is sock
        assert answer.status == 412  # the last one was there
        link = download(place.owner, datas[0]).request
        for _ in range(2):
            connection.request("GET", urlsplit(link.url).path)
            assert connection.getresponse().read() == datas[0]
            assert connection.sock is sock
        connection.request("GET", "/storage/nonsense")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (403, "close")


def test_between_two_requests_there_is_a_deadline(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = offer(place.owner, [b"then silence"]).requests
    assert request is not None
    connection = http.client.HTTPConnection(place.address.host, place.address.port, timeout=60)
    with contextlib.closing(connection):
        for status in (200, 412):
            connection.request("PUT", urlsplit(request.url).path, b"then silence", request.headers)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (status, status == 412)
            # For what follows the next answer: a busy machine may take longer for a request.
            monkeypatch.setattr(guarded, "REQUEST_WITHIN", 0.2)
        assert connection.sock.recv(1) == b""  # cut off, and not kept for ever


def test_contents_that_are_named_are_counted_each(
    new_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "CONTENTS_BURST", 1_200.0)
    monkeypatch.setattr(api, "CONTENTS_RATE", 0.001)
    device = new_place().owner
    hashes = tuple(blake3(bytes([n % 256, n // 256])).hexdigest() for n in range(500))
    request = RequestLinks(room=device.room, area="rooms", contents=hashes)
    for _ in range(2):
        device.api.ask("/api/request-links", LinksTold, request)
    with pytest.raises(TooManyRequests):
        device.api.ask("/api/request-links", LinksTold, request)
    assert device.ask(b"y").state == "open"  # other requests aren't held up by it
