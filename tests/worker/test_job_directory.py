"""The directory of a job, and the folder of them all."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from sleap_rtc.domain.ids import JobId, PackageId, RoomId, make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import Busy, Conflict, DataError, UnknownJob
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.worker.job_directory import JobDirectory, JobStore
from sleap_rtc.worker.runner.logfile import LogReader


def clock() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


def spec(number: int = 1) -> JobSpec:
    return JobSpec(
        id=JobId(make_uuid7(unix_ms=number, randomness=bytes(10))),
        engine="tiny",
        work=TrainSpec(
            labels="a.slp",
            stages=(TrainStage(config="c.yaml", model_type="centroid", run_name="r"),),
            dataset_name="a.slp",
            dataset_hash="ab" * 32,
        ),
        inputs=PackageRef(id=PackageId("ab" * 32), size=1, files=1, listing=50),
        room=RoomId("a" * 32),
    )


def test_a_job_appears_queued(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs")
    assert store.ids() == []
    job = store.create(spec(), clock=clock)
    assert store.get(spec().id) == job
    assert job.read_spec() == spec()
    assert [event.body.state for event in LogReader(job.log).read()] == ["queued"]  # type: ignore[union-attr]
    assert job.root.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in store.root.iterdir()] == [spec().id]


def test_asking_twice_is_asking_once(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.create(spec(), clock=clock)
    assert store.create(spec(), clock=clock) == job
    with pytest.raises(Conflict, match="asks for something else"):
        store.create(replace(spec(), name="other"), clock=clock)
    assert job.read_spec().name == ""
    assert [entry.name for entry in tmp_path.iterdir()] == [spec().id]


def test_the_oldest_job_is_first(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    for number in (3, 1, 2):
        store.create(spec(number), clock=clock)
    (tmp_path / "something").mkdir()
    assert store.ids() == [spec(number).id for number in (1, 2, 3)]


@pytest.mark.parametrize("name", ["", "..", "../x", "something", spec(9).id])
def test_unknown_jobs(tmp_path: Path, name: str) -> None:
    (tmp_path / "something").mkdir()
    with pytest.raises(UnknownJob):
        JobStore(tmp_path).get(name)
    with pytest.raises(UnknownJob):
        JobDirectory(root=tmp_path / "nowhere").read_spec()
    with pytest.raises(UnknownJob):
        JobDirectory(root=tmp_path / "nowhere").claim()


def test_a_damaged_specification(tmp_path: Path) -> None:
    job = JobStore(tmp_path).create(spec(), clock=clock)
    job.spec.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        job.read_spec()


def test_one_at_a_time(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.create(spec(), clock=clock)
    with job.claim():
        with pytest.raises(Busy):
            job.claim()
        with pytest.raises(Busy):
            store.remove(job.root.name)
    store.remove(job.root.name)
    assert list(tmp_path.iterdir()) == []
