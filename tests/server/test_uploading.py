"""Whole files through a real server: up, and down again, over the HTTP API."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from sleap_rtc.domain.ids import RoomId
from sleap_rtc.errors import DataError, InvalidName, StorageUnreachable, UnknownUpload, UnsafeUrl
from sleap_rtc.net.address import ServerAddress, parse_server
from sleap_rtc.net.api import ServerApi
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.objects import MIN_PART, Part, SignedRequest, Upload
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.remote import RemoteStore
from sleap_rtc.storage.service import UploadTold
from sleap_rtc.storage.upload import upload_file
from sleap_rtc.testing.lab import Lab
from sleap_rtc.testing.seaweed import SeaweedServer
from sleap_rtc.testing.server import ServerProcess

from .conftest import Place, send, use

SIZE = 6 * MIN_PART + 12_345
SHORT = Patience(attempts=200, base=0.1, cap=1)
"""For a server that is started anew, on a busy machine too."""


def content(path: Path, size: int = SIZE) -> str:
    """A file of bytes that don't repeat in parts; its BLAKE3."""
    data = b"".join(hashlib.sha256(n.to_bytes(8, "big")).digest() * 64 for n in range(size // 2048))
    data += b"." * (size - len(data))
    path.write_bytes(data)
    return blake3(data).hexdigest()


class Stop(Exception):
    """Ends an upload as Ctrl-C does."""


def store_of(lab: Lab) -> RemoteStore:
    key = lab.made.owner
    api = ServerApi(lab.address, device=key.device, sign=key.sign, name="laptop")
    return RemoteStore(api, lab.room, "rooms")


def fetch(store: RemoteStore, digest: str, target: Path, size: int = SIZE) -> None:
    request = store.download_request
    reader = RangeReader(lambda: request(store.key(digest)), name="it", patience=SHORT)
    target.write_bytes(reader.read(0, size))
    reader.close()
    assert blake3(target.read_bytes()).hexdigest() == digest


# ── in one process ───────────────────────────────────────────────────────────


def test_up_and_down_and_not_up_again(place: Place, tmp_path: Path) -> None:
    digest = content(tmp_path / "file", 3 * MIN_PART)
    store = store_of(place.lab)
    assert store.head(store.key(digest)) is None
    seen: list[int] = []
    done = upload_file(
        store,
        tmp_path / "file",
        store.key(digest),
        state=tmp_path / "state",
        part_size=MIN_PART,
        progress=seen.append,
    )
    assert done.size == seen[-1] == 3 * MIN_PART
    assert max(seen[:-1], default=0) > 0
    again: list[int] = []
    told = upload_file(
        store, tmp_path / "file", done.key, state=tmp_path / "state", progress=again.append
    )
    assert (told.etag, again) == (done.etag, [done.size])
    fetch(store, digest, tmp_path / "back", 3 * MIN_PART)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_what_came_to_be_there_meanwhile(place: Place, tmp_path: Path) -> None:
    digest = content(tmp_path / "file", 5_000)
    store = store_of(place.lab)
    key = store.key(digest)
    upload_file(store, tmp_path / "file", key, state=tmp_path / "state")
    with pytest.raises(UnknownUpload):
        store.begin(key, size=5_000, part_size=MIN_PART)


def test_keys_of_others(place: Place) -> None:
    store = store_of(place.lab)
    digest = "0" * 64
    for key in ("x", f"uploads/{place.lab.room}/{digest}", f"rooms/x/files/{digest}", "a/" * 40):
        with pytest.raises(InvalidName):
            store.head(key)


class Lying:
    """A server whose links lead elsewhere."""

    def __init__(self, server: ServerAddress, request: SignedRequest) -> None:
        self.server, self._request = server, request

    def ask(self, _path: str, answer: type[Any], *_: Any, **__: Any) -> Any:
        if answer.__name__ == "RequestsTold":
            return answer(requests=(self._request,), expires_in=1)
        return answer(key="k", size=1, etag="e", request=self._request, expires_in=1)


LAB, HOME = "https://lab.org", "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("server", "url", "headers", "good"),
    [
        (LAB, "https://lab.org/storage/x", {}, True),
        (LAB, "https://bucket.example.org/x?y=z", {"x-amz-checksum-sha256": "y"}, True),
        (LAB, "http://bucket.example.org/x", {}, False),
        (LAB, "https://10.0.0.1/x", {}, False),
        (LAB, "https://169.254.169.254/x", {}, False),
        (LAB, "file:///etc/passwd", {}, False),
        (LAB, "https://lab.org/x", {"authorization": "Bearer x"}, False),
        (HOME, "http://127.0.0.1:1/storage/x", {}, True),
        (HOME, "http://127.0.0.1:9000/bucket/x", {"content-length": "1"}, True),
        (HOME, "file:///etc/passwd", {}, False),
        ("https://10.0.0.1", "https://10.0.0.2/bucket", {}, True),
        ("https://10.0.0.1", "http://10.0.0.2/bucket", {}, False),
    ],
)
def test_where_a_servers_links_may_lead(
    server: str, url: str, headers: dict[str, str], good: bool
) -> None:
    now = datetime.now(UTC)
    room = "a" * 32
    for method, ask in (
        ("GET", lambda store: store.download_request(store.key("0" * 64))),
        (
            "PUT",
            lambda store: store.part_requests(
                _upload(store), [Part(number=1, size=1, sha256=bytes(32))]
            ),
        ),
    ):
        request = SignedRequest(method=method, url=url, headers=headers, expires=now)
        api: Any = Lying(parse_server(server), request)
        store = RemoteStore(api, room, "rooms")  # type: ignore[arg-type]
        if good:
            assert ask(store) in (request, [request])
        else:
            with pytest.raises((UnsafeUrl, DataError)):
                ask(store)
        other = SignedRequest(method="DELETE", url=url, headers={}, expires=now)
        api._request = other
        with pytest.raises(DataError):
            ask(store)


@pytest.mark.parametrize("part_size", [0, 1, MIN_PART])
def test_parts_that_make_no_sense_arent_begun_with(part_size: int) -> None:
    class Odd:
        server = parse_server(LAB)

        def ask(self, *_: object, **__: object) -> UploadTold:
            told = {"key": "k", "size": 1 << 40, "upload_id": "0" * 32, "part_size": part_size}
            return UploadTold(state="open", **told)

    api: Any = Odd()
    store = RemoteStore(api, RoomId("a" * 32), "rooms")
    with pytest.raises(DataError, match="parts"):
        store.begin(store.key("0" * 64), size=1 << 40, part_size=128 << 20)


def _upload(store: RemoteStore) -> Any:
    return Upload(key=store.key("0" * 64), id="0" * 32, size=1, part_size=MIN_PART)


# ── buckets in place of the folder ───────────────────────────────────────────


@pytest.mark.slow
def test_a_client_can_not_tell_buckets_from_the_folder(
    with_buckets: tuple[Place, SeaweedServer], tmp_path: Path
) -> None:
    place, seaweed = with_buckets
    digest = content(tmp_path / "file")
    store = store_of(place.lab)
    key = store.key(digest)

    def upload(progress: Any = None) -> int:
        return upload_file(
            store,
            tmp_path / "file",
            key,
            state=tmp_path / "state",
            part_size=MIN_PART,
            in_flight=1,
            progress=progress,
            patience=SHORT,
        ).size

    def stop(done: int) -> None:
        if done > SIZE // 2:
            raise Stop

    with pytest.raises(Stop):
        upload(stop)
    seen: list[int] = []
    assert upload(seen.append) == SIZE
    assert seen[0] >= 2 * MIN_PART
    fetch(store, digest, tmp_path / "back")
    assert blake3((tmp_path / "back").read_bytes()).hexdigest() == digest
    assert not (place.info.data_dir / "storage").exists()
    assert use(store.download_request(key), range="bytes=5-9").status == 206
    assert send(place.address, "GET", "/storage/x").status == 404
    # Wrong bytes are refused by the store, and a store that is away is said to be.
    told = place.owner.ask(b"right")
    reply = use(place.owner.tickets(told, b"right")[0], b"wrong")
    assert reply.status == 400
    use(place.owner.tickets(told, b"right")[0], b"right")
    assert place.owner.complete(told, b"right").size == 5
    seaweed.kill()
    reached = place.device(place.lab.made.owner)
    with pytest.raises(StorageUnreachable):
        reached.ask(b"anything")


# ── real processes and real kills ────────────────────────────────────────────


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[ServerProcess, Lab]]:
    with ServerProcess(tmp_path / "data") as found:
        lab = Lab(found.address, found.setup_code)

        async def open_room() -> None:
            async with lab.owner():
                pass

        asyncio.run(open_room())
        yield found, lab


@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_upload(
    process: tuple[ServerProcess, Lab], tmp_path: Path
) -> None:
    server, lab = process
    digest = content(tmp_path / "file")
    store = store_of(lab)
    kills: list[int] = []
    lock = threading.Lock()

    def kill_at_times(done: int) -> None:
        with lock:
            if done >= (len(kills) + 1) * SIZE // 4 and len(kills) < 3:
                kills.append(done)
                server.kill()
                server.start()

    done = upload_file(
        store,
        tmp_path / "file",
        store.key(digest),
        state=tmp_path / "state",
        part_size=MIN_PART,
        in_flight=2,
        progress=kill_at_times,
        patience=SHORT,
    )
    assert done.size == SIZE
    assert kills
    server.kill()
    server.start()
    fetch(store, digest, tmp_path / "back")
    assert blake3((tmp_path / "back").read_bytes()).hexdigest() == digest
    assert list((tmp_path / "data" / "storage" / "uploads").iterdir()) == []


@pytest.mark.slow
def test_what_was_sent_is_not_sent_again(
    process: tuple[ServerProcess, Lab], tmp_path: Path
) -> None:
    server, lab = process
    digest = content(tmp_path / "file")

    def stop(done: int) -> None:
        if done > SIZE // 2:
            raise Stop

    def upload(progress: Any) -> None:
        store = store_of(lab)
        upload_file(
            store,
            tmp_path / "file",
            store.key(digest),
            state=tmp_path / "state",
            part_size=MIN_PART,
            in_flight=1,
            progress=progress,
            patience=SHORT,
        )

    with pytest.raises(Stop):
        upload(stop)
    server.kill()
    server.start()
    seen: list[int] = []
    upload(seen.append)
    # The part that was under way is sent again, and nothing else.
    assert seen[0] >= SIZE // 2 - MIN_PART - (SIZE // 2) % MIN_PART
    text = _metrics(server)
    assert float(text.partition('storage_bytes_total{direction="in"} ')[2].split()[0]) < SIZE


@pytest.mark.slow
def test_two_clients_upload_the_same_file(
    process: tuple[ServerProcess, Lab], tmp_path: Path
) -> None:
    _, lab = process
    digest = content(tmp_path / "file")

    def upload(number: int) -> int:
        store = store_of(lab)
        return upload_file(
            store,
            tmp_path / "file",
            store.key(digest),
            state=tmp_path / f"state-{number}",
            part_size=MIN_PART,
            patience=SHORT,
        ).size

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(upload, range(2))) == [SIZE, SIZE]
    fetch(store_of(lab), digest, tmp_path / "back")


def _metrics(server: ServerProcess) -> str:
    return send(server.address, "GET", "/metrics").body.decode()
