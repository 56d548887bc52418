"""Connections for HTTP: names are looked up, their addresses checked, and exactly those dialled."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any, Final

import httpcore2

from sleap_rtc.errors import UnsafeUrl
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.urls import Target, is_public

MAX_CONNECTIONS: Final = 10
"""Connections that are kept open to all hosts together."""
IDLE_S: Final = 30.0
"""Seconds that an idle one is kept."""


class CheckedBackend(httpcore2.SyncBackend):
    """Dials public addresses, and those that the user has configured.

    Args:
        trusted: Hosts and ports that may have private addresses.
    """

    def __init__(self, trusted: Iterable[tuple[str, int]]) -> None:
        self._trusted = frozenset(trusted)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to one of a host's addresses.

        Raises:
            UnsafeUrl: The host has only addresses that may not be asked.
            httpcore2.ConnectError: No address answers.
            httpcore2.ConnectTimeout: Not in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        failed: Exception = httpcore2.ConnectError("it has no address")
        for address in self._addresses(host, port):
            left = None if until is None else max(until - time.monotonic(), 0.001)
            try:
                return super().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(error.strerror or "its name is unknown") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if (host, port) in self._trusted:
            return addresses
        public = [a for a in addresses if is_public(ipaddress.ip_address(a.partition("%")[0]))]
        if not public:
            raise UnsafeUrl(url=host, why=f"its address {addresses[0]} is not a public one")
        return public


class Pools:
    """Open connections: straight to a host, or by way of the proxy that the environment names.

    A proxy looks names up itself, so their addresses can't be checked here then: it is the
    user's own, and decides what it connects to. The user's own servers are asked straight.

    Args:
        own: The user's own servers.
        tls: Whom to trust; None for whom the system trusts.
    """

    def __init__(self, own: Iterable[ServerAddress], *, tls: ssl.SSLContext | None) -> None:
        self._own = frozenset((address.host, address.port) for address in own)
        self._tls = tls
        self._pools: dict[str | None, httpcore2.ConnectionPool] = {}
        self._lock = threading.Lock()

    def of(self, target: Target) -> httpcore2.ConnectionPool:
        """The pool for what is to be asked."""
        proxy = None
        if not target.own and not urllib.request.proxy_bypass(target.address.host):
            proxy = urllib.request.getproxies().get("https" if target.address.secure else "http")
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = self._new(proxy)
            return self._pools[proxy]

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    def _new(self, proxy: str | None) -> httpcore2.ConnectionPool:
        self._tls = self._tls or httpcore2.default_ssl_context()
        kept: dict[str, Any] = {
            "ssl_context": self._tls,
            "max_connections": MAX_CONNECTIONS,
            "keepalive_expiry": IDLE_S,
            "http2": True,
        }
        if proxy is None:
            return httpcore2.ConnectionPool(network_backend=CheckedBackend(self._own), **kept)
        return httpcore2.HTTPProxy(proxy, **kept)
