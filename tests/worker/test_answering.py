"""What fits into a message. Who may ask what is in tests/endtoend/test_admission.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.client.approvals import Approvals
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import UnknownModel, UsageError
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.jobs.events import JobEvent, Logged, ModelChanged
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.library.registry import Registry
from sleap_rtc.protocol.link import (
    JobHappened,
    JobsTold,
    JobSummary,
    Notice,
    Reply,
    SubmitJob,
    frames,
)
from sleap_rtc.worker.answering import Answers, _fitting, _sendable
from sleap_rtc.worker.peers import Asker

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


def test_a_model_with_a_very_long_configuration_is_told_without_it():
    long = {f"key {n}": "x" * 900 for n in range(100)}
    whole = event(10)
    training = msgspec.structs.replace(whole.body.record.training, hyperparameters=long)
    record = msgspec.structs.replace(whole.body.record, training=training)
    body = msgspec.structs.replace(whole.body, record=record)
    told = _sendable(msgspec.structs.replace(whole, body=body))
    assert told.body.record.package == "1" * 64
    assert told.body.record.training.hyperparameters == {}
    frames.encode(Notice(body=JobHappened(job=JOB, event=told)))


def test_long_names_of_some_jobs_dont_hide_the_list() -> None:
    jobs = [
        JobSummary(
            id=JOB,
            name="\x01" * 1000,
            kind="train",
            engine="tiny",
            state="queued",
            submitted_at=NOW,
            last_event=number,
        )
        for number in range(100)
    ]
    told = _fitting(jobs)
    assert len(told) > 5
    assert list(told) == jobs[: len(told)]
    frames.encode(Reply(id="r" * 64, body=JobsTold(jobs=told)))
    assert _fitting(jobs[:3]) == tuple(jobs[:3])


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield Answers(
            describe=lambda: pytest.fail("nobody asked"),
            registry=registry,
            cache=HashCache(tmp_path / "hashes"),
            max_files=1_000,
            keep_free=0,
            worker="gpu-1",
            approvals=Approvals(tmp_path / "trusted"),
        )


@pytest.mark.parametrize(
    ("package", "why"),
    [
        (PackageRef(id="1" * 64, size=1, files=1_001, listing=100_000), "1,001 files; .* 1,000"),
        (PackageRef(id="1" * 64, size=10**6, files=1, listing=2**28), "impossible listing"),
    ],
)
async def test_a_listing_that_is_too_much_is_not_even_asked_for(
    answers: Answers, package: PackageRef, why: str
) -> None:
    stage = TrainStage(config="c.yaml", model_type="centroid", run_name="run")
    spec = JobSpec(
        id=JOB,
        engine="tiny",
        work=TrainSpec(
            labels="a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        ),
        inputs=package,
        room="a" * 32,
    )
    asker = Asker(device="1" * 64, name="ada", role="member", session="s", worker="f" * 64)
    with pytest.raises(UsageError, match=why):
        await answers._submit(asker, SubmitJob(spec=spec))


def test_nobody_learns_which_files_are_on_this_machine(tmp_path: Path, answers: Answers) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("")
    told = []
    for path in (secret, tmp_path / "absent.txt"):
        with pytest.raises(UnknownModel) as raised:
            answers._find(str(path))
        told.append(str(raised.value).replace(path.name, "") + raised.value.hint_text)
    assert told[0] == told[1]
