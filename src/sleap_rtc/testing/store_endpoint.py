"""An HTTP endpoint on 127.0.0.1 for a store that is a folder, and that misbehaves when told to.

It honours the folder's tickets as the server's own endpoint does. `StoreEndpoint.fault` is asked
before each request; what it returns is done instead:

=============  ====================================================
``"500"``, …   that status, with an XML error as S3 has it
``"cut"``      the connection is closed in the middle
``"lie"``      200, and nothing is kept
``"flip"``     one byte of what goes out is another
``"half"``     half of what was to go out does, and the connection is closed
=============  ====================================================
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from sleap_rtc.errors import AlreadyExists, SleapRtcError
from sleap_rtc.storage.folder import FolderStore

Fault = Callable[[str, int], str | None]
"""Given the method and the number of the request, from 1: what happens to it."""

_CHUNK: Final = 256 * 1024


class StoreEndpoint:
    """A folder store behind HTTP, as a context manager.

    Args:
        root: The folder.
        port: To listen on; 0 takes a free one.

    Attributes:
        store: The folder as a store, whose links lead here.
        fault: Decides which requests go wrong.
        requests: Method and, of a part, its number, for each request so far.
    """

    def __init__(self, root: Path, *, port: int = 0) -> None:
        self.fault: Fault = lambda _method, _number: None
        self.requests: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.store = FolderStore(root, base_url=f"http://127.0.0.1:{self.port}/blobs")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                endpoint._answer(self)

            def do_GET(self) -> None:
                endpoint._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        with contextlib.suppress(ConnectionError):
            try:
                ticket = self.store.ticket(
                    request.path.rpartition("/")[2], method=str(request.command)
                )
                with self._lock:
                    self.requests.append((request.command, ticket.number))
                    count = len(self.requests)
                fault = self.fault(request.command, count)
                if fault == "cut":
                    request.rfile.read(ticket.size // 2)
                elif fault == "lie":
                    request.rfile.read(ticket.size)
                    _say(request, 200, {"etag": '"0"'})
                elif fault is not None and fault.isdigit():
                    _say(request, int(fault), {"retry-after": "0"}, _xml("SlowDown"))
                elif request.command == "PUT":
                    self._put(request, ticket)
                else:
                    self._get(request, ticket.key, fault)
            except AlreadyExists as error:
                _say(request, 412, {}, _xml(error.code))
            except SleapRtcError as error:
                _say(request, error.http_status, {}, _xml(error.code))

    def _put(self, request: BaseHTTPRequestHandler, ticket: Any) -> None:
        left = int(request.headers["content-length"])
        try:
            with self.store.receive(ticket) as part:
                while left and (chunk := request.rfile.read(min(_CHUNK, left))):
                    part.write(chunk)
                    left -= len(chunk)
                stored = part.commit()
        except AlreadyExists:
            request.rfile.read(left)  # or it wouldn't be heard
            raise
        _say(request, 200, {"etag": f'"{stored.etag}"'})

    def _get(self, request: BaseHTTPRequestHandler, key: str, fault: str | None) -> None:
        try:
            found = self.store.open(key)
        except FileNotFoundError:
            _say(request, 404, {}, _xml("NoSuchKey"))
            return
        with found:
            about = found.about
            if request.headers.get("if-match", f'"{about.etag}"') != f'"{about.etag}"':
                _say(request, 412, {}, _xml("PreconditionFailed"))
                return
            first, _, last = request.headers.get("range", "bytes=0-")[6:].partition("-")
            start, end = int(first), min(int(last) + 1 if last else about.size, about.size)
            data = bytearray(os.pread(found.fd, end - start, start))
            if fault == "flip":
                data[0] ^= 1
            where = f"bytes {start}-{end - 1}/{about.size}"
            sent = data[: len(data) // 2] if fault == "half" else data
            headers = {"etag": f'"{about.etag}"', "content-range": where}
            _say(request, 206, headers, bytes(sent), length=len(data))


def _say(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str],
    body: bytes = b"",
    *,
    length: int | None = None,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("content-length", str(len(body) if length is None else length))
    request.send_header("connection", "close")
    request.end_headers()
    request.wfile.write(body)


def _xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()
