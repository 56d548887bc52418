"""Limits of the server."""

from __future__ import annotations

import pytest

from sleap_rtc.errors import NotPermitted
from sleap_rtc.server.limits import Pending, message_cost


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
