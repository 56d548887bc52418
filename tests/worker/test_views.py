"""How jobs stand: read once, kept, and right whatever happens to the log."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sleap_rtc.errors import DataError
from sleap_rtc.jobs.eventlog import decode_line
from sleap_rtc.jobs.events import Logged, StateChanged
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner import logfile
from sleap_rtc.worker.runner.logfile import Known, LogWriter
from sleap_rtc.worker.views import Views


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def decoded(monkeypatch):
    """The numbers of the events that are read."""
    numbers = []

    def decode(line, *, n):
        numbers.append(n)
        return decode_line(line, n=n)

    monkeypatch.setattr(logfile, "decode_line", decode)
    return numbers


@pytest.fixture
def job(tmp_path):
    return JobDirectory(root=tmp_path)


def write(job, *lines, known=None):
    with LogWriter(job.log, clock=now, known=known) as log:
        for line in lines:
            log.append(line)
        return log.view


def test_an_event_is_read_once(job, decoded):
    views = Views()
    write(job, StateChanged(state="queued"), Logged(line="one"))
    decoded.clear()
    assert (views(job).number, views(job).state) == (2, "queued")
    assert decoded == [1, 2]
    with LogWriter(job.log, clock=now) as log:
        decoded.clear()
        log.append(Logged(line="two"))
    assert views(job).number == 3
    assert decoded == [3]


def test_a_writer_goes_on_from_what_is_known(job, decoded):
    views = Views()
    write(job, StateChanged(state="queued"), Logged(line="one"))
    views(job)
    known = views.known(job)
    write(job, Logged(line="two"))
    decoded.clear()
    assert write(job, StateChanged(state="cancelled"), known=known).number == 4
    assert decoded == [3]
    assert views(job).state == "cancelled"


def test_a_writer_whose_log_was_cut_reads_it_whole(job):
    views = Views()
    write(job, StateChanged(state="queued"))
    end = job.log.stat().st_size
    write(job, Logged(line="lost in a power cut"))
    views(job)
    with job.log.open("r+b") as file:
        file.truncate(end)
    assert write(job, Logged(line="two"), known=views.known(job)).number == 2


def test_a_log_that_was_cut_is_read_from_its_start(job):
    views = Views()
    write(job, StateChanged(state="queued"), Logged(line="lost in a power cut"))
    views(job)
    with job.log.open("r+b") as file:
        file.truncate(0)
    with pytest.raises(DataError, match="were asked for"):
        views(job)
    assert views(job).number == 0


def test_so_many_jobs_are_kept(tmp_path, decoded):
    views = Views(most=1)
    one, other = (JobDirectory(root=tmp_path / name) for name in "ab")
    for job in (one, other):
        job.root.mkdir()
        write(job, StateChanged(state="queued"))
    decoded.clear()
    for job in (one, one, other, one):
        views(job)
    assert decoded == [1, 1, 1]
    assert views.known(other) == Known()
    assert views.known(one).end > 0
