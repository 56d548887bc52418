"""A real TURN server, where the system has one."""

from __future__ import annotations

import contextlib
import socket

import pytest

from sleap_rtc.config import load
from sleap_rtc.testing import turn
from sleap_rtc.testing.turn import TurnServer, find_coturn


def test_a_server_that_isnt_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="install the system's package coturn"):
        TurnServer(tmp_path, "127.0.0.1").start()


def test_what_it_says_of_itself_is_a_setting(tmp_path):
    server = TurnServer(tmp_path, "127.0.0.1")
    [told] = load({"ice_servers": [server.ice("udp", "tcp")]}).ice_servers
    assert told.urls == tuple(
        f"turn:127.0.0.1:{server.port}?transport={way}" for way in ("udp", "tcp")
    )
    assert told.username == turn.USER
    assert len(told.credential) > 16


def ask(udp: socket.socket, port: int) -> bytes:
    """The answer to a binding request, which is sent again until one comes (RFC 8489, 6.2.1)."""
    udp.settimeout(0.5)
    # Its type, length 0, the magic cookie, an id of 12 bytes.
    request = bytes.fromhex("00010000 2112a442") + bytes(12)
    for _ in range(60):
        udp.sendto(request, ("127.0.0.1", port))
        with contextlib.suppress(TimeoutError):
            return udp.recv(1000)
    raise TimeoutError


@pytest.mark.slow
def test_it_answers_on_both_and_ends(tmp_path):
    if find_coturn() is None:
        pytest.skip("coturn is not installed (apt install coturn)")
    with TurnServer(tmp_path / "turn", "127.0.0.1") as server:
        socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            assert ask(udp, server.port)[:2] == b"\x01\x01"
        assert server.relayed == 0
        assert 0 <= server.cpu_s < 5
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), timeout=60)


@pytest.mark.slow
def test_what_it_can_t_do_is_said(tmp_path, monkeypatch):
    (tmp_path / "turnserver").write_text("#!/bin/sh\necho no way\nexit 1\n")
    (tmp_path / "turnserver").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match="coturn didn't start: no way"):
        TurnServer(tmp_path / "turn", "127.0.0.1").start()
