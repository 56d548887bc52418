"""What a watcher makes of a worker's word. The rest is in tests/endtoend/test_training.py."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from sleap_rtc.client import watching
from sleap_rtc.client.watching import MAX_PAST, Watcher
from sleap_rtc.errors import DataError
from sleap_rtc.jobs.events import JobEvent, Logged, StateChanged
from sleap_rtc.protocol.link import JobHappened, JobSummary

NOW = datetime(2026, 4, 1, tzinfo=UTC)
JOB = "00000000-03e9-7404-8101-010101010101"


def watcher(last_event: int) -> Watcher:
    made = Watcher(
        SimpleNamespace(switchboard=None), room="a" * 32, job=JOB, worker="gpu-1", locate=list
    )
    summary = JobSummary(
        id=JOB,
        name="flies.slp",
        kind="train",
        engine="tiny",
        state="queued",
        submitted_at=NOW,
        last_event=last_event,
    )
    made.told = SimpleNamespace(job=summary)
    return made


def event(number: int) -> JobEvent:
    body = StateChanged(state="queued") if number == 1 else Logged(line=str(number))
    return JobEvent(n=number, at=NOW, body=body)


async def test_the_past_is_what_the_worker_spoke_of():
    watching_ = watcher(2)
    for number in (1, 2, 3):
        watching_._noticed(JobHappened(job=JOB, event=event(number)))
    assert await watching_.past() == [event(1), event(2)]


async def test_a_worker_that_speaks_of_more_than_it_sends_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(watching, "QUIET_S", 0.01)
    watching_ = watcher(3)
    for number in (1, 2):
        watching_._noticed(JobHappened(job=JOB, event=event(number)))
    with pytest.raises(DataError, match=r"worker gpu-1 .* 3 events, and none came after 2"):
        await watching_.past()


async def test_a_worker_that_speaks_of_more_than_any_job_has_is_not_believed():
    with pytest.raises(DataError, match=str(MAX_PAST)):
        await watcher(10**15).past()
