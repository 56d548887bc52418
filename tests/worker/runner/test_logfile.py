"""The log of a job on disk."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleap_rtc.errors import DataError, IllegalTransition, OutOfSpace, SleapRtcError
from sleap_rtc.jobs.eventlog import encode_line
from sleap_rtc.jobs.events import (
    Body,
    ErrorTold,
    JobEvent,
    Logged,
    Progress,
    StateChanged,
)
from sleap_rtc.jobs.lifecycle import replay
from sleap_rtc.worker.runner.logfile import BATCH, RESERVE, LogReader, LogWriter

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def clock() -> datetime:
    return AT


def writer(path: Path) -> LogWriter:
    return LogWriter(path, clock=clock)


def read_all(path: Path, since: int = 0) -> list[JobEvent]:
    reader, found = LogReader(path, since=since), []
    while events := reader.read():
        found += events
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_what_is_appended_is_read(path: Path) -> None:
    with writer(path) as log:
        events = [log.append(StateChanged(state="queued")), log.append(Logged(line="ü"))]
        assert read_all(path) == events
        assert log.view == replay(events)
    with writer(path) as log:
        assert log.view.number == 2
        assert log.append(Logged(line="more")).n == 3
    assert [e.n for e in read_all(path, since=1)] == [2, 3]


def test_what_cannot_follow_is_not_written(path: Path) -> None:
    with writer(path) as log:
        log.append(StateChanged(state="queued"))
        with pytest.raises(IllegalTransition):
            log.append(StateChanged(state="completed"))
        assert log.append(Logged(line="x")).n == 2


def test_a_reader_follows_a_writer(path: Path) -> None:
    reader = LogReader(path)
    assert reader.read() == []
    with writer(path) as log:
        assert reader.read() == []
        log.append(StateChanged(state="queued"))
        assert [e.n for e in reader.read()] == [1]
        assert reader.read() == []
        log.append(Logged(line="x"))
        assert [e.n for e in reader.read()] == [2]
        assert reader.number == 2


def test_a_reader_waits_for_the_rest_of_a_line(path: Path) -> None:
    line = encode_line(JobEvent(n=1, at=AT, body=Logged(line="x")))
    reader = LogReader(path)
    for cut in range(len(line)):
        path.write_bytes(line[:cut])
        assert reader.read() == []
    path.write_bytes(line)
    assert [e.n for e in reader.read()] == [1]


def test_a_reader_ahead_of_the_log_is_told(path: Path) -> None:
    with pytest.raises(DataError, match="0 events, and those after 3"):
        LogReader(path, since=3).read()
    with writer(path) as log:
        log.append(StateChanged(state="queued"))
    with pytest.raises(DataError, match="1 events, and those after 3"):
        LogReader(path, since=3).read()
    reader = LogReader(path, since=1)
    assert reader.read() == []
    path.write_bytes(b"")
    with pytest.raises(DataError):
        reader.read()


def test_a_long_log_is_read_in_batches(path: Path) -> None:
    count = 3 * BATCH + 1
    path.write_bytes(
        b"".join(
            encode_line(JobEvent(n=n, at=AT, body=Logged(line="x"))) for n in range(1, count + 1)
        )
    )
    reader = LogReader(path, since=10)
    sizes = []
    while events := reader.read():
        sizes.append(len(events))
    assert sizes == [BATCH, BATCH, BATCH - 9]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_log(path: Path) -> None:
    with path.open("wb") as file:
        for n in range(1, 100_001):
            file.write(encode_line(JobEvent(n=n, at=AT, body=Progress(stage=0, done=n))))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from sleap_rtc.worker.runner.logfile import LogReader\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "reader, count = LogReader(Path(sys.argv[1]), since=50_000), 0\n"
        "count += len(reader.read()); before = peak()\n"
        "while events := reader.read(): count += len(events)\n"
        "print(count, peak() - before)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True
    )
    count, grown = map(int, found.stdout.split())
    assert count == 50_000
    assert grown < (8 * 1024 if sys.platform == "linux" else 8 * 1024**2)


def test_torn_at_every_byte(path: Path) -> None:
    with writer(path) as log:
        first = [log.append(StateChanged(state="queued")), log.append(Logged(line="two"))]
        size = path.stat().st_size
        log.append(Logged(line="three"))
    whole = path.read_bytes()
    for cut in range(size, len(whole)):
        path.write_bytes(whole[:cut])
        with writer(path) as log:
            assert log.view.number == 2
            new = log.append(Logged(line="again"))
        assert read_all(path) == [*first, new]
    assert sorted(p.name for p in path.parent.iterdir()) == ["events.jsonl", "reserve"]


def test_whole_events_behind_damage_are_set_aside(path: Path) -> None:
    with writer(path) as log:
        log.append(StateChanged(state="queued"))
        start = path.stat().st_size
        log.append(Logged(line="two"))
        log.append(Logged(line="three"))
    data = bytearray(path.read_bytes())
    data[start + 30] ^= 1
    path.write_bytes(data)
    with writer(path) as log:
        assert log.view.number == 1
        log.append(Logged(line="new two"))
    assert path.with_name("events.jsonl.damaged-2").read_bytes() == data[start:]
    assert len(read_all(path)) == 2


def test_a_tail_of_zeros_is_cut(path: Path) -> None:
    with writer(path) as log:
        log.append(StateChanged(state="queued"))
    with path.open("ab") as file:
        file.write(bytes(5000))
    with writer(path) as log:
        assert log.view.number == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_open_or_raise_a_clear_error(tmp_path: Path, data: bytes, sound: bool) -> None:
    path = tmp_path / "any.jsonl"
    first = encode_line(JobEvent(n=1, at=AT, body=StateChanged(state="queued")))
    path.write_bytes(first + data if sound else data)
    try:
        with writer(path) as log:
            assert log.view.number == (1 if sound else 0)
            log.append(Logged(line="x"))
    except SleapRtcError:
        assert path.read_bytes() == (first + data if sound else data)
    else:
        assert [e.n for e in read_all(path)] == ([1, 2] if sound else [1])


def test_an_impossible_log_is_refused_and_left_alone(path: Path) -> None:
    line = encode_line(JobEvent(n=1, at=AT, body=StateChanged(state="completed")))
    path.write_bytes(line)
    with pytest.raises(IllegalTransition):
        writer(path)
    assert path.read_bytes() == line


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            os.ftruncate(file.fileno(), file.tell())


def append_until_full(log: LogWriter, body: Body) -> int:
    for written in itertools.count():
        try:
            log.append(body)
        except OutOfSpace:
            return written
    raise AssertionError


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_on_a_full_disk_the_log_stays_whole_and_says_how_it_ended(small_disk: Any) -> None:
    disk = small_disk(256)
    path = disk / "events.jsonl"
    with writer(path) as log:
        for state in ("queued", "assigned", "preparing", "running"):
            log.append(StateChanged(state=state))
        fill(disk / "other")
        written = append_until_full(log, Logged(line="x" * 1000))
        assert len(read_all(path)) == log.view.number == 4 + written
        # What doesn't count gets nothing of the reserve; what counts does.
        assert path.with_name("reserve").stat().st_size == RESERVE
        log.append(ErrorTold(code="out_of_space", message="m" * 4000))
        log.append(StateChanged(state="failed"))
        assert not path.with_name("reserve").exists()
    assert read_all(path)[-1].body == StateChanged(state="failed")
    with writer(path) as log:
        assert log.view.state == "failed"
        fill(disk / "more")
        append_until_full(log, ErrorTold(code="out_of_space", message="m" * 4000))
    assert len(read_all(path)) == log.view.number
