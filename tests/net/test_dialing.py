"""Which addresses are dialled."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import httpcore2
import pytest

from sleap_rtc.errors import UnsafeUrl
from sleap_rtc.net.address import ServerAddress
from sleap_rtc.net.dialing import CheckedBackend, Pools
from sleap_rtc.net.urls import UrlRules, check_url


@pytest.fixture
def listener() -> Any:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as found:
        yield found


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[tuple[str, int]]:
    """Let every name stand for these addresses; tells what was dialled."""
    real = socket.create_connection
    dialled: list[tuple[str, int]] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        family = socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    def connect(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        dialled.append(address)
        if not address[0].startswith("127."):
            raise ConnectionRefusedError(111, "refused")
        return real(address, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    return dialled


def test_a_name_for_a_private_address_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = names(monkeypatch, "127.0.0.1", "10.0.0.1")
    with pytest.raises(UnsafeUrl, match=r"127\.0\.0\.1"):
        CheckedBackend([]).connect_tcp("rebound.example.org", 443)
    assert dialled == []


def test_only_what_was_checked_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled = names(monkeypatch, "10.0.0.1", "8.8.8.8", "8.8.4.4")
    with pytest.raises(httpcore2.ConnectError):
        CheckedBackend([]).connect_tcp("mixed.example.org", 443, timeout=1)
    assert dialled == [("8.8.8.8", 443), ("8.8.4.4", 443)]


def test_the_own_server_may_be_private(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    stream = CheckedBackend([("localhost", port)]).connect_tcp("localhost", port, timeout=60)
    stream.close()
    with pytest.raises(UnsafeUrl):
        CheckedBackend([("localhost", port + 1)]).connect_tcp("localhost", port, timeout=60)


def test_a_name_that_is_none() -> None:
    with pytest.raises(httpcore2.ConnectError):
        CheckedBackend([]).connect_tcp("nowhere.invalid", 443, timeout=1)


def test_the_environments_proxy_is_for_others_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "near.example.org")
    own = ServerAddress(host="127.0.0.1", port=1, secure=False)
    rules = UrlRules(own=frozenset({own}))
    pools = Pools({own}, tls=None)
    kinds = {
        url: type(pools.of(check_url(url, rules)))
        for url in ("https://a.example.org/", "https://near.example.org/", "http://127.0.0.1:1/")
    }
    pools.close()
    assert list(kinds.values()) == [
        httpcore2.HTTPProxy,
        httpcore2.ConnectionPool,
        httpcore2.ConnectionPool,
    ]
