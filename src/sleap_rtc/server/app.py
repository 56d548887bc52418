"""Putting a server together, running it, and ending it.

A signal (SIGTERM, SIGINT) or ``stop`` ends it gracefully: nobody new is
accepted, every device is told that the server restarts (close code 1012), what
was asked is finished, and the process ends with 0 within seconds. Devices come
back by themselves and enter their rooms again; links between them don't notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from loguru import logger

from sleap_rtc.config import Settings
from sleap_rtc.errors import InvalidConfig
from sleap_rtc.files.claim import Claim
from sleap_rtc.protocol.codec import MAX_MESSAGE
from sleap_rtc.server.addresses import Addresses, check_exposure
from sleap_rtc.server.api import Api
from sleap_rtc.server.asgi import App
from sleap_rtc.server.guarded import GuardedHttp, GuardedWebSocket
from sleap_rtc.server.hub import Hub
from sleap_rtc.server.metrics import ServerMetrics
from sleap_rtc.server.objects import Objects
from sleap_rtc.server.openapi import encoded as openapi_document
from sleap_rtc.server.requests import Desk
from sleap_rtc.server.sockets import BACKLOG, listen, raise_file_limit
from sleap_rtc.server.store import Store, prepare_data_dir
from sleap_rtc.server.storing import open_storage
from sleap_rtc.server.stun import StunServer
from sleap_rtc.server.tokens import Tokens

PING: Final = 20.0
"""Seconds between pings, and until an unanswered one ends a connection."""
GRACE: Final = 5
"""Seconds that connections have to end when the server stops."""
_TRUSTED_PROXIES: Final = (
    "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7"
)


class ServerInfo(msgspec.Struct, frozen=True):
    """What there is to say of a server that is ready.

    Attributes:
        url: Where devices reach it.
        port: Its TCP port.
        stun_port: UDP port of the STUN responder, 0 for none.
        data_dir: Where it keeps its database.
        setup_code: For the first device; None when one was registered before.
        warning: What its administrator should know, or None.
    """

    url: str
    port: int
    stun_port: int
    data_dir: Path
    setup_code: str | None
    warning: str | None

    def __repr__(self) -> str:
        return f"ServerInfo(url={self.url!r})"


def run_server(settings: Settings, *, on_ready: Callable[[ServerInfo], None]) -> None:
    """Run a server until SIGTERM or SIGINT; it returns when all has ended in good order.

    Args:
        settings: All of them; ``serving`` is the server's.
        on_ready: Called once, when the server answers.

    Raises:
        InvalidConfig: A setting is wrong, or it would be reached without TLS.
        Busy: Another server has the folder, or another program the port.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # uvicorn takes these over while it serves, and raises them again when it is done:
            # they must meet a handler then, or the process would end by the signal.
            loop.add_signal_handler(number, stop.set)
        await serve(settings, on_ready=on_ready, stop=stop)

    asyncio.run(main())


def new_code(settings: Settings) -> str:
    """Make a set-up code, with the server running or not.

    Raises:
        InvalidConfig: There is no server's folder where the settings say.
    """
    data_dir = settings.serving.data_dir
    if not data_dir.is_dir():
        raise InvalidConfig(
            where="--data-dir", why=f"there is no folder {data_dir}", hint="Start a server first."
        )
    prepare_data_dir(data_dir)
    with contextlib.closing(Store(data_dir)) as store:
        return store.new_code(now=_now())


async def serve(
    settings: Settings, *, on_ready: Callable[[ServerInfo], None], stop: asyncio.Event
) -> None:
    """Run a server inside a running loop until ``stop`` is set.

    Args:
        settings: All of them; ``serving`` is the server's.
        on_ready: Called once, when the server answers.
        stop: Ends the server.

    Raises:
        InvalidConfig: A setting is wrong, or it would be reached without TLS.
        Busy: Another server has the folder, or another program the port.
    """
    serving = settings.serving
    warning = check_exposure(serving, insecure=settings.insecure)
    prepare_data_dir(serving.data_dir)
    with contextlib.ExitStack() as ending:
        claim = Claim(serving.data_dir, what=f"The server's folder {serving.data_dir}")
        ending.callback(claim.release)
        store = Store(serving.data_dir)
        ending.callback(store.close)
        listeners = ending.enter_context(_listening(serving.host, serving.port))
        port = listeners[0].getsockname()[1]
        metrics = ServerMetrics()
        stun_port = 0
        if serving.stun_port:
            stun = await StunServer.start(
                serving.host,
                serving.stun_port,
                count=lambda outcome: metrics.stun.labels(outcome=outcome).inc(),
            )
            ending.callback(stun.close)
            stun_port = stun.port
        addresses = Addresses(serving, port=port, host_name=socket.gethostname())
        hub = Hub(
            Desk(store, _now),
            addresses,
            metrics,
            stun_port=stun_port,
            ice=settings.ice_servers,
            stopping=lambda: server.should_exit,
        )
        info = ServerInfo(
            url=addresses.url(serving),
            port=port,
            stun_port=stun_port,
            data_dir=serving.data_dir,
            setup_code=store.first_code(now=_now()),
            warning=warning,
        )
        opened = open_storage(settings, store, hub.desk, _now)
        tokens = Tokens(store.database, server=info.url)
        openapi = openapi_document()
        if opened is not None:
            ending.callback(opened.close)
        desk, doubts = (opened.desk, opened.doubts) if opened else (None, None)
        api = Api(hub, tokens, desk, doubts, now=_now, openapi=openapi)
        ending.callback(api.close)
        objects = Objects(opened.folder, metrics) if opened and opened.folder else None
        if objects is not None:
            ending.callback(objects.close)
        app = App(hub, store, api, objects)
        server = _Server(_uvicorn_config(settings, app), lambda: on_ready(info))
        logger.info("up to {} connections, data in {}", raise_file_limit(), serving.data_dir)
        stopper = asyncio.create_task(_stop_when(stop, server))
        ending.callback(stopper.cancel)
        if opened is not None:
            tender = asyncio.create_task(opened.tend())
            ending.callback(tender.cancel)
        await server.serve(sockets=listeners)
        logger.info("stopped")


class _Server(uvicorn.Server):
    """uvicorn, telling when it has started."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()


async def _stop_when(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[list[socket.socket]]:
    listeners = listen(host, port, socket.SOCK_STREAM, flag="--port")
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def _uvicorn_config(settings: Settings, app: Any) -> uvicorn.Config:
    serving = settings.serving
    config = uvicorn.Config(
        app,
        http=GuardedHttp,
        ws=GuardedWebSocket,
        ws_max_size=MAX_MESSAGE,
        ws_max_queue=4,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        ws_per_message_deflate=False,
        lifespan="off",
        backlog=BACKLOG,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=serving.behind_proxy,
        forwarded_allow_ips=_TRUSTED_PROXIES,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=serving.tls_cert,
        ssl_keyfile=serving.tls_key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        why = f"the certificate or its key can't be used ({error})"
        raise InvalidConfig(where="--tls-cert", why=why) from None
    return config


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
