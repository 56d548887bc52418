"""The tests' own guards: what `tests/conftest.py` promises."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sleap_rtc.config import load


def test_nothing_leaves_this_machine() -> None:
    # An address for documentation (RFC 5737): were the guard broken, nobody would hear.
    with socket.socket() as stream, pytest.raises(RuntimeError, match=r"192\.0\.2\.1"):
        stream.connect(("192.0.2.1", 80))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        pytest.raises(RuntimeError, match=r"192\.0\.2\.1"),
    ):
        datagram.sendto(b"x", ("192.0.2.1", 9))
    with pytest.raises(RuntimeError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nowhere.invalid", 443)


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=60).close()


def test_the_home_is_the_tests_own(own_home: Path) -> None:
    settings = load()
    assert Path.home() == own_home
    assert settings.home == own_home / ".sleap-rtc"
    assert not settings.engines_dir.is_relative_to(own_home)
    assert os.environ["SLEAP_RTC_ENGINES"] == str(settings.engines_dir)
