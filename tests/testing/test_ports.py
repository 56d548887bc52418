"""Ports that nobody else has, nor gets by chance."""

from __future__ import annotations

import socket

import pytest

from sleap_rtc.testing.ports import free_ports


@pytest.mark.parametrize("second", [0, 10_000])
def test_they_are_free_and_none_of_those_that_anybody_may_get(second: int) -> None:
    found = free_ports(5, "127.0.0.1", second=second)
    assert len(set(found)) == 5
    for port in {each + more for each in found for more in (0, second)}:
        assert 10_000 <= port < 32_768
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind(("127.0.0.1", port))
            datagrams.bind(("127.0.0.1", port))
