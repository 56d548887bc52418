"""The server's paths.

=======================  ==========================================================
``/api/v1/signaling``    the WebSocket (``protocol/signaling.py``)
``/healthz``             200 while the process answers at all
``/readyz``              200 while the database can be read, else 503
``/metrics``             counters for Prometheus; no names, no ids
=======================  ==========================================================

Everything else is 404. An error has one shape, on every path::

    {"error": {"code": "not_found", "message": "…", "hint": "…"}}
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Final

import msgspec

from sleap_rtc.errors import NotFound, SleapRtcError, UsageError
from sleap_rtc.observe.metrics import render
from sleap_rtc.protocol.signaling import PATH
from sleap_rtc.server.connection import Connection, Receive, Scope, SendAsgi
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.store import Store

_JSON: Final = "application/json"


class App:
    """The ASGI application.

    Args:
        hub: Serves signaling.
        store: Is asked whether it can be read.
    """

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub, self._store = hub, store

    async def __call__(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        """Serve one connection or one request."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            status, content_type, body = await self._http(scope)
            await _respond(send, status, content_type, body, head=scope["method"] == "HEAD")

    async def _websocket(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        if scope["path"] == PATH:
            await Connection(self._hub, scope, receive, send).run()
        else:
            await receive()
            await send({"type": "websocket.close"})

    async def _http(self, scope: Scope) -> tuple[int, str, bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return _error(UsageError(message="Only GET is understood here."), status=405)
        match scope["path"]:
            case "/healthz":
                return 200, _JSON, b'{"status":"ok"}'
            case "/readyz":
                return await self._ready()
            case "/metrics":
                return 200, *render(self._hub.metrics.registry)
        return _error(NotFound(message="There is nothing here."))

    async def _ready(self) -> tuple[int, str, bytes]:
        if self._hub.stopping():
            return _error(SleapRtcError(message="The server is stopping."), status=503)
        try:
            await asyncio.to_thread(self._store.check)
        except (sqlite3.Error, SleapRtcError):
            return _error(SleapRtcError(message="The database can't be read."), status=503)
        return 200, _JSON, b'{"status":"ok"}'


def _error(error: SleapRtcError, *, status: int | None = None) -> tuple[int, str, bytes]:
    plain = {"code": error.code, "message": error.message, "hint": error.hint_text}
    return status or error.http_status, _JSON, msgspec.json.encode({"error": plain})


async def _respond(
    send: SendAsgi, status: int, content_type: str, body: bytes, *, head: bool
) -> None:
    headers = [
        (b"content-type", content_type.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        # One request for each connection: what follows it would have no deadline.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
