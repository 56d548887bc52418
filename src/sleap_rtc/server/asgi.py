"""The server's paths.

=======================  ==========================================================
``/api/v1/signaling``    the WebSocket (``protocol/signaling.py``)
``/healthz``             200 while the process answers at all
``/readyz``              200 while the database can be read, else 503
``/metrics``             counters for Prometheus; no names, no ids
``/api/…``               the HTTP API (``server/api.py``, ``/api/openapi.json``)
``/storage/…``           parts and objects, where the server keeps them itself
=======================  ==========================================================

Everything else is 404. An error has one shape, on every path::

    {"error": {"code": "not_found", "message": "…", "hint": "…"}}
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

from sleap_rtc.errors import NotFound, SleapRtcError, UsageError
from sleap_rtc.observe.metrics import render
from sleap_rtc.protocol.signaling import PATH
from sleap_rtc.server.api import Api
from sleap_rtc.server.connection import Connection
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.objects import PREFIX, Objects
from sleap_rtc.server.responses import Answer, Receive, Scope, SendAsgi, failed, respond
from sleap_rtc.server.store import Store

_OK = Answer(status=200, body=b'{"status":"ok"}')


class App:
    """The ASGI application.

    Args:
        hub: Serves signaling.
        store: Is asked whether it can be read.
        api: Serves what is below ``/api/``.
        objects: Serves what is below ``/storage/``; None where the server keeps no files itself.
    """

    def __init__(self, hub: Hub, store: Store, api: Api, objects: Objects | None) -> None:
        self._hub, self._store, self._api, self._objects = hub, store, api, objects

    async def __call__(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        """Serve one connection or one request."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            with contextlib.suppress(ConnectionError):
                await self._request(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        if scope["path"] == PATH:
            await Connection(self._hub, scope, receive, send).run()
        else:
            await receive()
            await send({"type": "websocket.close"})

    async def _request(self, scope: Scope, receive: Receive, send: SendAsgi) -> None:
        path = str(scope["path"])
        if path.startswith(PREFIX) and self._objects is not None:
            await self._objects.serve(scope, receive, send)
            return
        if path.startswith("/api/") and path != PATH:
            answer = await self._api.answer(scope, receive)
        else:
            answer = await self._http(scope)
        await respond(send, answer, head=scope["method"] == "HEAD")

    async def _http(self, scope: Scope) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return failed(UsageError(message="Only GET is understood here."), status=405)
        match scope["path"]:
            case "/healthz":
                return _OK
            case "/readyz":
                return await self._ready()
            case "/metrics":
                content_type, body = render(self._hub.metrics.registry)
                return Answer(status=200, body=body, content_type=content_type)
        return failed(NotFound(message="There is nothing here."))

    async def _ready(self) -> Answer:
        if self._hub.stopping():
            return failed(SleapRtcError(message="The server is stopping."), status=503)
        try:
            await asyncio.to_thread(self._store.check)
        except (sqlite3.Error, SleapRtcError):
            return failed(SleapRtcError(message="The database can't be read."), status=503)
        return _OK
