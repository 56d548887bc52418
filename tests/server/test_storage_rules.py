"""What holds for all of the storage: rights, times, turns."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from sleap_rtc.errors import Busy, NotPermitted
from sleap_rtc.server.storage_rules import LIFETIME, Turns, check_writer, ends
from sleap_rtc.storage.objects import StoredObject

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("role", "areas"),
    [
        ("owner", {"uploads", "rooms"}),
        ("member", {"uploads", "rooms"}),
        ("worker", {"rooms"}),
        ("viewer", set()),
    ],
)
def test_who_may_write_where(role: str, areas: set[str]) -> None:
    member: Any = SimpleNamespace(role=role)
    may = set()
    for area in ("uploads", "rooms"):
        try:
            check_writer(member, area)  # type: ignore[arg-type]
        except NotPermitted:
            continue
        may.add(area)
    assert may == areas


def test_when_what_goes() -> None:
    found = StoredObject(key="k", size=1, etag="e", modified=NOW)
    assert ends("rooms", found, None) is None
    assert ends("uploads", found, None) == NOW + LIFETIME
    assert ends("uploads", found, NOW + timedelta(hours=1)) == NOW + timedelta(hours=25)
    assert ends("uploads", StoredObject(key="k", size=1, etag="e"), None) is None


def test_one_at_a_time() -> None:
    turns, entered = Turns(), threading.Event()

    def wait() -> None:
        with turns.of("k"):
            entered.set()

    with turns.of("k"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not entered.wait(0.05)
        with turns.of("another"):
            pass
        with pytest.raises(Busy, match="k on the server is in use"), turns.of("k", wait=False):
            pass
    thread.join(60)
    assert entered.is_set()
    with turns.of("k", wait=False):
        pass
    assert turns._turns == {}
