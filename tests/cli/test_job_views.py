from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from sleap_rtc.cli import job_views
from sleap_rtc.cli.job_documents import JobsDocument, TrackDocument, TrainDocument
from sleap_rtc.client.submitted import short


def test_no_jobs(cli):
    done = cli("jobs")
    assert (done.code, done.out) == (0, "")
    assert "There is no job." in done.err
    assert cli("jobs", "--json").document == {"jobs": []}


def test_the_list_says_what_was_last_seen_where_nobody_can_be_asked(cli, home):
    done_job = home.job(1, state="completed")
    running = home.job(2, track=True, state="running")
    done = cli("jobs", environment={"COLUMNS": "80"})
    _, first, second = done.out.splitlines()
    assert first.startswith(short(running.id))
    assert "running" in first
    assert "track" in first
    assert "completed" in second
    assert "last seen" not in second
    assert max(map(len, done.out.splitlines())) <= 80
    shown = msgspec.convert(cli("jobs", "--json").document, JobsDocument).jobs
    assert [(one.id, one.state, one.current) for one in shown] == [
        (running.id, "running", False),
        (done_job.id, "completed", True),
    ]
    # A room that this device has left is shown by its id.
    assert shown[0].room == "a" * 32
    assert cli("jobs", "-q").out.split() == [running.id, done_job.id]
    assert len(cli("jobs", "--limit", "1", "--json").document["jobs"]) == 1


def test_what_workers_say_is_kept_for_when_they_are_away(cli, home, monkeypatch):
    job = home.job(state="preparing")
    told = SimpleNamespace(id=job.id, state="completed")

    async def ask(_client, _jobs):
        return {job.id: told}

    monkeypatch.setattr(job_views, "_ask_workers", ask)
    [shown] = cli("jobs", "--json").document["jobs"]
    assert (shown["state"], shown["current"]) == ("completed", True)
    assert home.jobs.get(job.id).state == "completed"
    [waits] = cli("transfers", "--json").document["transfers"]
    assert (waits["id"], waits["direction"], waits["state"]) == (job.id, "fetch", "cut")


def test_a_job_that_is_home_needs_no_worker(cli, home):
    model = home.model("a")
    job = home.job(state="completed", home=("model 0",), models={"0": model.id}, alias="flies")
    home.alias("flies", model.id)
    done = cli("jobs", "attach", short(job.id), "--json")
    assert done.code == 0
    assert "all of it is home" in done.err
    told = msgspec.convert(done.document, TrainDocument)
    assert (told.job, told.state, told.models[0].alias) == (job.id, "completed", "flies")
    words = cli("jobs", "attach", job.id)
    assert "sleap-rtc track --model flies VIDEO.mp4" in words.err
    assert cli("jobs", "attach", job.id, "-q").out.split() == [model.id]


def test_predictions_that_are_home_are_put_where_they_belong(cli, home, tmp_path):
    arrived = tmp_path / "arrived" / "videos" / "0"
    arrived.mkdir(parents=True)
    (arrived / "v.mp4.predictions.slp").write_bytes(b"predictions")
    target = tmp_path / "out" / "v.slp"
    job = home.job(
        track=True,
        state="completed",
        home=("predictions",),
        output=str(tmp_path / "arrived"),
        targets={"videos/0/v.mp4": str(target)},
    )
    told = msgspec.convert(cli("jobs", "attach", job.id, "--json").document, TrackDocument)
    assert target.read_bytes() == b"predictions"
    assert [one.predictions for one in told.predictions] == [str(target)]
    assert not (tmp_path / "arrived").exists()
    assert cli("jobs", "attach", job.id).out == f"{target}\n"


@pytest.mark.parametrize("action", ["stop", "cancel", "pause", "resume", "retry"])
def test_a_room_that_this_device_has_left(cli, home, action):
    job = home.job(state="running")
    done = cli("jobs", action, job.id)
    assert done.code == 3
    assert "There is no room" in done.err
