"""The jobs that this machine submitted."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_mistyped_name_finds_near_ones(tmp_path):
    jobs = SubmittedJobs(tmp_path)
    for randomness in ("00112233445566778899", "0011223344550a1b2c3d"):
        job = submitted(1)
        made = make_uuid7(unix_ms=1_000, randomness=bytes.fromhex(randomness))
        jobs.add(msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, id=made)))
    with pytest.raises(UnknownJob) as caught:
        jobs.get("0a1b2d3d")
    assert caught.value.hint_text == "Did you mean 0a1b2c3d?"


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


NOTE = """
import sys
import msgspec
from pathlib import Path
from sleap_rtc.client.submitted import SubmittedJobs

jobs, job, who = SubmittedJobs(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
sys.stdin.read()
for number in range(25):
    jobs.update(job, lambda old: msgspec.structs.replace(
        old, home=(*old.home, f"{who} {number}")))
"""


def test_several_processes_lose_nothing_of_each_other(tmp_path):
    jobs = SubmittedJobs(tmp_path)
    jobs.add(submitted(1))
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", NOTE, str(tmp_path), submitted(1).id, str(who)],
            stdin=subprocess.PIPE,
        )
        for who in range(4)
    ]
    for program in programs:
        program.stdin.close()
    assert [program.wait(60) for program in programs] == [0] * 4
    home = jobs.get(submitted(1).id).home
    assert sorted(home) == sorted(f"{who} {n}" for who in range(4) for n in range(25))
    # Their order within a process stays.
    assert [n for n in home if n.startswith("2 ")] == [f"2 {n}" for n in range(25)]


def test_what_is_no_change_is_not_written(tmp_path):
    jobs = SubmittedJobs(tmp_path)
    jobs.add(submitted(1))
    path = tmp_path / f"{submitted(1).id}.json"
    before = path.stat().st_ino
    assert jobs.update(submitted(1).id, lambda old: old) == submitted(1)
    assert path.stat().st_ino == before
