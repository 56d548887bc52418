"""The jobs that this machine submitted."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from sleap_rtc.client.submitted import SubmittedJob, SubmittedJobs, short
from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import AmbiguousName, UnknownJob
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage


def submitted(number: int) -> SubmittedJob:
    stage = TrainStage(config="configs/0/c.yaml", model_type="centroid", run_name="run")
    spec = JobSpec(
        id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
        engine="tiny",
        work=TrainSpec(
            labels="labels/a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        ),
        inputs=PackageRef(id="1" * 64, size=1, files=1, listing=50),
        room="a" * 32,
    )
    return SubmittedJob(
        spec=spec,
        room="a" * 32,
        worker="gpu-1",
        device="2" * 64,
        submitted_at=datetime(2026, 1, 2, tzinfo=UTC),
        files={"labels/a.slp": "/home/ada/a.slp"},
    )


def test_a_job_is_found_again_by_id_and_by_its_last_digits(tmp_path):
    jobs = SubmittedJobs(tmp_path / "jobs")
    one, two = submitted(1), submitted(2)
    jobs.add(one)
    jobs.add(two)
    assert jobs.get(one.id) == one
    assert jobs.get(short(two.id)) == two
    assert [job.id for job in jobs.all()] == [two.id, one.id]


def test_a_change_is_kept(tmp_path):
    jobs = SubmittedJobs(tmp_path)
    jobs.add(submitted(1))
    job = submitted(1)
    jobs.update(job.id, lambda old: msgspec.structs.replace(old, state="running"))
    assert SubmittedJobs(tmp_path).get(job.id).state == "running"


def test_unknown_and_ambiguous_names_are_said(tmp_path):
    jobs = SubmittedJobs(tmp_path / "none")
    assert jobs.all() == []
    with pytest.raises(UnknownJob, match="'zzzz'"):
        jobs.get("zzzz")
    jobs.add(submitted(1))
    jobs.add(submitted(2))
    with pytest.raises(AmbiguousName):
        jobs.get("0000")
    with pytest.raises(UnknownJob):
        jobs.get("1")


def test_a_file_that_is_not_readable_hides_no_other(tmp_path):
    jobs = SubmittedJobs(tmp_path)
    jobs.add(submitted(1))
    (tmp_path / f"{submitted(2).id}.json").write_text("{")
    (tmp_path / "notes.json").write_text("{}")
    assert [job.id for job in jobs.all()] == [submitted(1).id]
