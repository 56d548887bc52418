"""Whether and when a request is sent once more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.net.retrying import AGAIN, HOST_FAILED, NOT_DONE, Retry, parse_retry_after, pause

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_what_counts_against_a_host_is_tried_again() -> None:
    assert HOST_FAILED <= AGAIN
    assert NOT_DONE <= AGAIN
    assert 404 not in AGAIN


@given(
    st.integers(1, 10),
    st.none() | st.floats(0, 1e9),
    st.floats(0, 1),
    st.builds(
        Retry,
        attempts=st.integers(1, 8),
        base=st.floats(0.01, 5),
        cap=st.floats(5, 60),
    ),
)
def test_pauses_are_bounded(
    attempt: int, retry_after: float | None, chance: float, retry: Retry
) -> None:
    seconds = pause(retry, attempt, retry_after=retry_after, chance=chance)
    if attempt >= retry.attempts or (retry_after is not None and retry_after > retry.cap):
        assert seconds is None
        return
    assert seconds is not None
    assert 0 <= seconds <= retry.cap
    if retry_after is not None:
        assert seconds >= retry_after
    else:
        assert seconds <= retry.base * 2 ** (attempt - 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("9" * 30, None),
        ("Sun, 99 Mar 2026 99:00:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


@given(st.integers(0, 10**6))
def test_dates_come_back(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, NOW) == seconds


@given(st.text(max_size=200))
def test_any_text_is_read_or_not(text: str) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or found >= 0
