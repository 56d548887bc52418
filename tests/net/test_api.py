"""A device asks a real server's API."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sleap_rtc.errors import (
    HostUnreachable,
    NotSignedIn,
    Offline,
    ProtocolError,
    ServerUnreachable,
    UnknownUpload,
)
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.api import ServerApi
from sleap_rtc.net.http import HttpClient
from sleap_rtc.net.retrying import Retry
from sleap_rtc.net.urls import UrlRules
from sleap_rtc.storage.service import Aborted, AbortUpload, UploadStatus
from sleap_rtc.testing.lab import Lab

ABORT = AbortUpload(upload_id="0" * 32)


class Clock:
    """Seconds, set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def api_of(lab: Lab, address: ServerAddress | None = None, **changes: Any) -> ServerApi:
    address = address or lab.address
    client = HttpClient(UrlRules(own=frozenset({address})), retry=Retry(attempts=1))
    key = lab.made.owner
    given = {"device": key.device, "sign": key.sign, "name": "laptop", "client": client}
    return ServerApi(address, **(given | changes))


def count(sign: Callable[[str, bytes], bytes]) -> tuple[list[int], Callable[[str, bytes], bytes]]:
    signed: list[int] = []

    def counted(context: str, payload: bytes) -> bytes:
        signed.append(1)
        return sign(context, payload)

    return signed, counted


async def test_it_signs_in_by_itself_and_again_when_the_token_ends(lab: Lab) -> None:
    async with lab.owner():
        pass
    clock = Clock()
    signed, sign = count(lab.made.owner.sign)
    api = api_of(lab, sign=sign, monotonic=clock)

    def ask() -> None:
        assert api.ask("/api/abort-upload", Aborted, ABORT) == Aborted()

    def several() -> None:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    await asyncio.to_thread(several)
    assert len(signed) == 1
    clock.seconds += 3_600 - 30
    await asyncio.to_thread(ask)
    assert len(signed) == 2
    api._token = "what the server doesn't know, since it was set up anew"
    await asyncio.to_thread(ask)
    assert len(signed) == 3
    with pytest.raises(UnknownUpload):
        await asyncio.to_thread(api.ask, "/api/upload-status/" + "0" * 32, UploadStatus)


async def test_a_device_that_the_server_does_not_know(lab: Lab) -> None:
    with pytest.raises(NotSignedIn):
        await asyncio.to_thread(api_of(lab).ask, "/api/abort-upload", Aborted, ABORT)


async def test_offline_nobody_is_asked(lab: Lab) -> None:
    signed, sign = count(lab.made.owner.sign)
    api = api_of(lab, sign=sign, client=None, offline=True)
    with api, pytest.raises(Offline, match="is not asked"):
        await asyncio.to_thread(api.ask, "/api/abort-upload", Aborted, ABORT)
    assert signed == []


class Other(http.server.BaseHTTPRequestHandler):
    """Some other server."""

    reply = (200, b"<html>")

    def do_POST(self) -> None:
        status, body = self.reply
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ((200, b"<html>"), ProtocolError),
        ((200, b'{"nonce": "../../etc", "expires_in": 1}'), ProtocolError),
        ((404, b"<html>"), ServerUnreachable),
        ((502, b'{"error": "no object"}'), ServerUnreachable),
    ],
)
def test_what_answers_is_something_else(reply: tuple[int, bytes], error: type[Exception]) -> None:
    handler = type("Handler", (Other,), {"reply": reply})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = ServerAddress(host="127.0.0.1", port=server.server_port, secure=False)
        lab = Lab(address, None)
        with pytest.raises(error):
            api_of(lab).ask("/api/abort-upload", Aborted, ABORT)
        server.shutdown()
        thread.join()
    with pytest.raises(HostUnreachable):
        api_of(lab).ask("/api/abort-upload", Aborted, ABORT)
