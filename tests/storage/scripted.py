"""A store that gives prepared answers, one after the other."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.wire import Connections
from sleap_rtc.testing.seaweed import ADMIN


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


def failing(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
