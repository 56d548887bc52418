"""What is told of an end fits into a message, whatever the trainer wrote."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sleap_rtc.engines.base import Outcome
from sleap_rtc.errors import OutOfSpace, TrainingFailed
from sleap_rtc.jobs.events import ErrorTold, JobEvent
from sleap_rtc.protocol.link import JobHappened, Notice, frames
from sleap_rtc.worker.runner.ending import from_outcome, told

JOB = "00000000-03e9-7404-8101-010101010101"


def sent(body: ErrorTold) -> int:
    event = JobEvent(n=1, at=datetime(2026, 4, 1, tzinfo=UTC), body=body)
    return len(frames.encode(Notice(body=JobHappened(job=JOB, event=event))))


@pytest.mark.parametrize("character", ["x", "\x01", "\U0001f600", '"'])
def test_an_end_with_very_much_to_say_fits_into_a_message(character: str) -> None:
    tail = (*(character * 5_000 for _ in range(200)), "ValueError: it exploded")
    outcome = Outcome(kind="failed", reason=character * 9_000, log_tail=tail)
    ending = from_outcome(outcome, what="Training centroid", code=TrainingFailed.code)
    assert ending.error is not None
    assert sent(ending.error) <= 64 * 1024
    assert ending.error.log_tail[-1] == "ValueError: it exploded"
    assert len(ending.error.log_tail) > 1


def test_the_last_lines_are_told_in_their_order() -> None:
    outcome = Outcome(kind="failed", reason="no", log_tail=tuple(map(str, range(150))))
    ending = from_outcome(outcome, what="Training", code=TrainingFailed.code)
    assert ending.error is not None
    assert ending.error.log_tail == tuple(map(str, range(50, 150)))
    assert ending.reason == "Training failed: no"


def test_what_nobody_asked_for_is_an_interruption() -> None:
    ending = from_outcome(Outcome(kind="cancelled"), what="Training", code="x")
    assert (ending.state, ending.error) == ("interrupted", None)
    assert "gave no reason" in ending.reason


def test_an_error_of_ours_is_told_with_its_hint() -> None:
    body = told(OutOfSpace(path="/" + "\x01" * 9_000, free="0 B", need="1 B"))
    assert body.code == "out_of_space"
    assert "Make room" in body.hint
    assert sent(body) <= 64 * 1024
