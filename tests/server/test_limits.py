"""Limits of the server."""

from __future__ import annotations

import pytest

from sleap_rtc.errors import NotPermitted
from sleap_rtc.server.limits import Pending, message_cost, network_of


def test_large_messages_count_more() -> None:
    assert message_cost(0) == 1
    assert message_cost(64 * 1024) == 17


def test_pending_connections_are_bounded_in_all_and_per_address() -> None:
    pending = Pending(total=3, per_address=2)
    pending.begin("a")
    pending.begin("a")
    with pytest.raises(NotPermitted, match="sign in"):
        pending.begin("a")
    pending.begin("b")
    with pytest.raises(NotPermitted):
        pending.begin("c")
    pending.end("a")
    pending.begin("c")
    for address in ("a", "b", "c"):
        pending.end(address)
    pending.begin("a")
    pending.begin("a")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_stands_for_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_one_network_cannot_take_every_place() -> None:
    pending = Pending(total=10, per_address=2)
    pending.begin("2001:db8::1")
    pending.begin("2001:db8::2")
    with pytest.raises(NotPermitted):
        pending.begin("2001:db8::3")
    pending.begin("2001:db8:0:1::1")
    pending.end("2001:db8::1")
    pending.begin("2001:db8::3")
