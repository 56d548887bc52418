"""The lines of a job's log."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.errors import Damaged, DataError, NewerFormat
from sleap_rtc.jobs.eventlog import (
    HEAD,
    MAX_LINE,
    decode_line,
    encode_line,
    is_whole,
    line_length,
    sound_prefix,
)
from sleap_rtc.jobs.events import JobEvent, Logged, Progress, StateChanged

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

bodies = st.one_of(
    st.builds(Logged, line=st.text(max_size=200)),
    st.builds(StateChanged, state=st.sampled_from(["queued", "running"]), reason=st.text()),
    st.builds(
        Progress,
        stage=st.integers(0, 3),
        done=st.integers(0, 10**9),
        loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    ),
)
events = st.builds(JobEvent, n=st.integers(1, 10**9), at=st.just(AT), body=bodies)


def log_of(*lines: str) -> list[bytes]:
    return [
        encode_line(JobEvent(n=n, at=AT, body=Logged(line=line)))
        for n, line in enumerate(lines, start=1)
    ]


@given(events)
def test_round_trip(event: JobEvent) -> None:
    line = encode_line(event)
    assert line.count(b"\n") == 1
    assert line_length(line[:HEAD]) == len(line)
    assert decode_line(line, n=event.n) == event


def test_fields_of_a_later_version_are_kept() -> None:
    event = JobEvent(n=1, at=AT, body=Logged(line="x", unknown={"colour": "red"}))
    assert b'"colour":"red"' in encode_line(event)
    assert decode_line(encode_line(event), n=1) == event


def test_torn_at_every_byte_leaves_the_lines_before() -> None:
    lines = log_of("one", "two ü", "three")
    whole = b"".join(lines)
    ends = [0, len(lines[0]), len(lines[0] + lines[1]), len(whole)]
    for cut in range(len(whole) + 1):
        end, count = sound_prefix(whole[:cut])
        assert end == max(e for e in ends if e <= cut)
        assert end == ends[count]


def test_any_changed_byte_is_noticed() -> None:
    (line,) = log_of("something")
    for at in range(len(line)):
        changed = bytearray(line)
        changed[at] ^= 1
        assert not is_whole(bytes(changed))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_clear_error(data: bytes) -> None:
    end, count = sound_prefix(data)
    assert 0 <= end <= len(data)
    assert (count == 0) == (end == 0)
    with pytest.raises(Damaged):
        decode_line(data, n=1)


@given(st.binary(max_size=300))
def test_any_content_in_a_whole_line_is_an_event_or_a_clear_error(body: bytes) -> None:
    line = b"%08x %08x %b\n" % (len(body), zlib.crc32(body), body)
    assert is_whole(line)
    with pytest.raises(DataError):
        decode_line(line, n=1)


def test_another_number_in_its_place() -> None:
    (line,) = log_of("x")
    with pytest.raises(Damaged, match="event 1 stands in its place"):
        decode_line(line, n=2)


def test_a_later_major_format_is_refused() -> None:
    with pytest.raises(NewerFormat):
        decode_line(encode_line(JobEvent(n=1, at=AT, body=Logged(line=""), format="2.0")), n=1)


def test_lengths_have_a_bound() -> None:
    assert line_length(b"%08x 00000000 " % MAX_LINE) == HEAD + MAX_LINE + 1
    assert line_length(b"%08x 00000000 " % (MAX_LINE + 1)) is None
    assert line_length(b"0000000A 00000000 ") is None
    huge = JobEvent(n=1, at=AT, body=Logged(line="", unknown={"x": "y" * MAX_LINE}))
    with pytest.raises(ValueError, match="16777216 are allowed"):
        encode_line(huge)
