"""Sockets: one port on every address, and errors that say what to change."""

from __future__ import annotations

import resource
import socket

import pytest

from sleap_rtc.errors import Busy, InvalidConfig
from sleap_rtc.server.sockets import listen, raise_file_limit

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


@pytest.mark.parametrize("kind", [TCP, UDP])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::"])
def test_all_addresses_of_a_host_have_one_port(host: str, kind: socket.SocketKind) -> None:
    sockets = listen(host, 0, kind, flag="--port")
    try:
        assert len({one.getsockname()[1] for one in sockets}) == 1
        assert len(sockets) == (2 if host == "::" else len(sockets))
    finally:
        close(sockets)


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_a_port_that_is_taken_is_named(kind: socket.SocketKind) -> None:
    sockets = listen("127.0.0.1", 0, kind, flag="--port")
    port = sockets[0].getsockname()[1]
    try:
        with pytest.raises(Busy, match=f"Port {port} of 127.0.0.1") as caught:
            listen("127.0.0.1", port, kind, flag="--some-port")
        assert "--some-port" in caught.value.hint_text
    finally:
        close(sockets)
    close(listen("127.0.0.1", port, kind, flag="--port"))


@pytest.mark.parametrize("host", ["nowhere.invalid", "10.77.255.254"])
def test_a_host_that_is_not_here(host: str) -> None:
    with pytest.raises(InvalidConfig, match=host):
        listen(host, 0, TCP, flag="--port")


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 256), before[1]))
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
        assert raise_file_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
