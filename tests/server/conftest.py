"""A whole server in a thread, a room at it, and devices that speak HTTP to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from blake3 import blake3

from sleap_rtc.auth.keys import SigningKey
from sleap_rtc.config import Settings
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.api import ServerApi
from sleap_rtc.net.http import HttpClient
from sleap_rtc.net.retrying import Retry
from sleap_rtc.net.urls import UrlRules
from sleap_rtc.server.app import ServerInfo
from sleap_rtc.storage.objects import MIN_PART, Part, SignedRequest
from sleap_rtc.storage.service import (
    CompleteUpload,
    ObjectTold,
    RenewUpload,
    RequestsTold,
    RequestUpload,
    UploadTold,
)
from sleap_rtc.testing.lab import Lab
from sleap_rtc.testing.seaweed import ADMIN, SeaweedServer, find_weed
from sleap_rtc.testing.server import running_server, server_settings


class Reply:
    """What came back: status, headers in lower case, body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def error(self) -> dict[str, str]:
        """The error that it tells."""
        told = json.loads(self.body)["error"]
        assert set(told) == {"code", "message", "hint"}
        return dict(told)


def send(
    address: ServerAddress,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    **headers: str,
) -> Reply:
    """One request, exactly as it is given."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(connection):
        connection.request(method, path, body, named)
        return Reply(connection.getresponse())


def use(request: SignedRequest, body: bytes | None = None, **headers: str) -> Reply:
    """Make a signed request."""
    parts = urlsplit(request.url)
    address = ServerAddress(host=str(parts.hostname), port=parts.port or 80, secure=False)
    named = {name.replace("-", "_"): value for name, value in request.headers.items()} | headers
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return send(address, request.method, path, body, **named)


def parts_of(data: bytes, part_size: int) -> tuple[Part, ...]:
    """The parts of a content."""
    pieces = [data[at : at + part_size] for at in range(0, len(data), part_size)] or [b""]
    return tuple(
        Part(number=n, size=len(piece), sha256=hashlib.sha256(piece).digest())
        for n, piece in enumerate(pieces, 1)
    )


class Device:
    """A device that asks the API."""

    def __init__(self, lab: Lab, key: SigningKey, room: str) -> None:
        self.address, self.key, self.room = lab.address, key, room
        rules = UrlRules(own=frozenset({lab.address}))
        self.client = HttpClient(rules, retry=Retry(attempts=1))
        self.api = ServerApi(
            lab.address, client=self.client, device=key.device, sign=key.sign, name="laptop"
        )

    def ask(self, data: bytes, **changes: Any) -> UploadTold:
        """Ask to upload."""
        given: dict[str, Any] = {
            "room": self.room,
            "area": "rooms",
            "blake3": blake3(data).hexdigest(),
            "size": len(data),
            "part_size": MIN_PART,
        }
        request = RequestUpload(**(given | changes))
        return self.api.ask("/api/request-upload", UploadTold, request)

    def tickets(self, told: UploadTold, data: bytes) -> tuple[SignedRequest, ...]:
        """Requests for all parts."""
        parts = parts_of(data, told.part_size)
        request = RenewUpload(upload_id=told.upload_id, parts=parts)
        return self.api.ask("/api/renew-upload", RequestsTold, request).requests

    def put(self, told: UploadTold, data: bytes) -> None:
        """Send all parts."""
        for number, ticket in enumerate(self.tickets(told, data)):
            start = number * told.part_size
            reply = use(ticket, data[start : start + told.part_size])
            assert (reply.status, reply.body) == (200, b""), reply.body

    def complete(self, told: UploadTold, data: bytes) -> ObjectTold:
        """Complete it."""
        parts = parts_of(data, told.part_size)
        request = CompleteUpload(upload_id=told.upload_id, parts=parts)
        return self.api.ask("/api/complete-upload", ObjectTold, request)

    def upload(self, data: bytes, **changes: Any) -> ObjectTold:
        """All of it."""
        told = self.ask(data, **changes)
        self.put(told, data)
        return self.complete(told, data)


class Place:
    """A server in a thread of its own, and its room's people."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(60)
        self.lab = Lab(self.address, self.info.setup_code)
        asyncio.run(self._open_room())
        self.owner = self.device(self.lab.made.owner)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running_server(self._settings) as server:
            self.info: ServerInfo = server.info
            self.address: ServerAddress = server.address
            self._ready.set()
            await self._stop.wait()

    async def _open_room(self) -> None:
        async with self.lab.owner():
            pass

    def join(self, number: int, role: str) -> Device:
        """A device that came by an invite."""
        key = self.lab.made.key(number)

        async def enter() -> None:
            chain = self.lab.joined(key, 100 + number, role=role)
            async with self.lab.client(key, invite=chain) as client:
                await client.start()
                await client.enter_room(self.lab.room, chain=chain, name="x", kind="client")

        asyncio.run(enter())
        return self.device(key)

    def device(self, key: SigningKey) -> Device:
        """A device that may be known or not."""
        return Device(self.lab, key, self.lab.room)

    def close(self) -> None:
        """End the server."""
        self.owner.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server for all tests of a file."""
    found = Place(server_settings(tmp_path_factory.mktemp("server") / "data"))
    yield found
    found.close()


@pytest.fixture
def new_place(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes servers with settings of their own."""
    with contextlib.ExitStack() as ending:

        def make(**changes: Any) -> Place:
            found = Place(server_settings(tmp_path / "data", **changes))
            ending.callback(found.close)
            return found

        yield make


@pytest.fixture
def with_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Place, SeaweedServer]]:
    """A server whose rooms' files are in buckets of a real store."""
    if find_weed() is None:
        pytest.skip("SeaweedFS is not installed")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN.secret_key)
    with SeaweedServer(tmp_path / "seaweed") as seaweed:
        for name in ("sleap-rtc-uploads", "sleap-rtc-rooms"):
            seaweed.make_bucket(name)
        settings = server_settings(
            tmp_path / "data",
            server_storage="s3",
            storage_profile="development",
            storage_endpoint=seaweed.endpoint,
        )
        place = Place(settings)
        yield place, seaweed
        place.close()
