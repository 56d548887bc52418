"""What fits into a message. Who may ask what is in tests/endtoend/test_admission.py."""

from __future__ import annotations

from datetime import UTC, datetime

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.jobs.events import JobEvent, Logged, ModelChanged
from sleap_rtc.protocol.link import JobHappened, Notice, frames
from sleap_rtc.worker.answering import _sendable

NOW = datetime(2026, 4, 1, tzinfo=UTC)
JOB = "00000000-03e9-7404-8101-010101010101"


def event(files: int) -> JobEvent:
    record = ModelRecord(
        id="0a1b2c3d",
        name="run",
        model_type="centroid",
        status="completed",
        source="worker-training",
        created_at=NOW,
        canonical="{}",
        package="1" * 64,
        files=tuple(ModelFile(path=f"f{n}", size=1, blake3="0" * 64) for n in range(files)),
    )
    return JobEvent(n=7, at=NOW, body=ModelChanged(stage=1, record=record))


def test_an_event_of_usual_size_is_told_as_it_is():
    assert _sendable(event(10)) == event(10)
    said = JobEvent(n=1, at=NOW, body=Logged(line="x" * 4000))
    assert _sendable(said) == said


def test_a_model_of_very_many_files_is_told_without_their_list():
    told = _sendable(event(5_000))
    assert (told.n, told.body.stage, told.body.record.package) == (7, 1, "1" * 64)
    assert told.body.record.files == ()
    frames.encode(Notice(body=JobHappened(job=JOB, event=told)))
