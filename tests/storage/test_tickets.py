"""Tickets: what was sealed is what comes back, and nothing else is taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import NotPermitted
from sleap_rtc.storage.tickets import MAX_TOKEN, Ticket, expiry, seal, unseal

KEY = b"k" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)
tickets = st.builds(
    Ticket,
    method=st.sampled_from(["GET", "PUT"]),
    key=st.text(min_size=1, max_size=512),
    expires=st.integers(int(NOW.timestamp()), 1 << 40),
    upload=st.from_regex(r"\A([0-9a-f]{32})?\Z"),
    number=st.integers(1, 10_000),
    size=st.integers(0, 5 << 30),
    sha256=st.binary(min_size=32, max_size=32),
    crc32c=st.none() | st.binary(min_size=4, max_size=4),
)


@given(tickets)
def test_a_ticket_comes_back(ticket: Ticket) -> None:
    token = seal(ticket, KEY)
    assert unseal(token, KEY, method=ticket.method, now=NOW) == ticket
    assert all(character.isalnum() or character in "-_." for character in token)


@given(tickets, st.data())
def test_a_changed_token_is_refused(ticket: Ticket, data: st.DataObject) -> None:
    token = seal(ticket, KEY)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("Aa0-_.é"))
    changed = token[:at] + other + token[at + 1 :]
    if changed != token:
        with pytest.raises(NotPermitted):
            unseal(changed, KEY, method=ticket.method, now=NOW)


@given(st.text(max_size=50))
def test_rubbish_is_refused(token: str) -> None:
    with pytest.raises(NotPermitted):
        unseal(token, KEY, method="GET", now=NOW)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_a_ticket_is_for_one_method(method: str) -> None:
    get: Literal["GET"] = "GET"
    token = seal(Ticket(method=get, key="k", expires=int(NOW.timestamp())), KEY)
    assert unseal(token, KEY, method="HEAD", now=NOW).key == "k"
    with pytest.raises(NotPermitted, match="good for GET"):
        unseal(token, KEY, method=method, now=NOW)


def test_a_ticket_ends() -> None:
    until = expiry(NOW, 60)
    token = seal(Ticket(method="GET", key="k", expires=int(until.timestamp())), KEY)
    assert unseal(token, KEY, method="GET", now=until)
    with pytest.raises(NotPermitted, match="expired"):
        unseal(token, KEY, method="GET", now=until + timedelta(seconds=1))
    with pytest.raises(ValueError, match="seconds"):
        expiry(NOW, 0)


def test_what_another_version_sealed_is_refused() -> None:
    other = Ticket(method="GET", key="x" * 2_000, expires=1 << 40)
    with pytest.raises(NotPermitted, match="another version"):
        unseal(seal(other, KEY), KEY, method="GET", now=NOW)
    with pytest.raises(NotPermitted):
        unseal("a" * (MAX_TOKEN + 1), KEY, method="GET", now=NOW)
