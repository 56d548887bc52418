from __future__ import annotations

import click
import msgspec
import pytest

from sleap_rtc.cli.app import App
from sleap_rtc.cli.following import Followed, _goes_on, failure, finish
from sleap_rtc.cli.job_documents import TrackDocument, TrainDocument
from sleap_rtc.client.submitted import short
from sleap_rtc.jobs.events import ErrorTold
from sleap_rtc.jobs.lifecycle import JobView


@pytest.fixture
def end(make_output, home):
    """End a job on the screen: gives the exit code and the output."""

    def finished(job, view, *, ask=False, as_json=False, **streams):
        out = make_output(**streams)
        out.as_json = as_json
        app = App(out)
        try:
            finish(app, app.client(), Followed(job, view), ask=ask)
        except click.exceptions.Exit as ended:
            return ended.exit_code, out
        finally:
            app.close()
        return 0, out

    return finished


def test_a_completed_training(end, home):
    one, two = home.model("a"), home.model("b", model_type="centered_instance")
    home.alias("flies", one.id, two.id)
    job = home.job(models={"0": one.id, "1": two.id})
    code, out = end(job, JobView(state="completed"))
    assert code == 0
    assert "flies:centroid" in out.stdout.getvalue()
    assert "sleap-rtc track --model flies VIDEO.mp4" in out.stderr.getvalue()
    _, out = end(job, JobView(state="completed"), as_json=True)
    told = msgspec.json.decode(out.stdout.getvalue(), type=TrainDocument)
    assert [model.id for model in told.models] == [one.id, two.id]
    assert told.error is None


def test_models_that_are_not_here(end, home):
    model = home.model("a", files=False)
    job = home.job(models={"0": model.id, "1": "0badc0de"})
    _, out = end(job, JobView(state="completed"))
    assert "not here" in out.stdout.getvalue()
    assert f"sleap-rtc jobs attach {short(job.id)} --download" in out.stderr.getvalue()


def test_models_without_a_name(end, home):
    model = home.model("a")
    _, out = end(home.job(models={"0": model.id}), JobView(state="completed"))
    assert f"sleap-rtc track --model {model.id} VIDEO.mp4" in out.stderr.getvalue()


@pytest.mark.parametrize(
    ("view", "code", "said"),
    [
        (
            JobView(
                state="failed",
                error=ErrorTold(code="invalid_config", message="It is wrong.", hint="Mend it."),
            ),
            2,
            "error: It is wrong.\nhint: Mend it.",
        ),
        (JobView(state="failed", reason="boom"), 1, "failed: boom"),
        (JobView(state="cancelled"), 130, "was cancelled"),
        (JobView(state="interrupted", reason="killed"), 1, "was interrupted: killed"),
    ],
    ids=["told", "failed", "cancelled", "interrupted"],
)
def test_what_did_not_end_well_has_an_exit_code(end, home, view, code, said):
    job = home.job()
    ended, out = end(job, view)
    assert ended == code
    assert said in out.stderr.getvalue()
    ended, out = end(job, view, as_json=True)
    told = msgspec.json.decode(out.stdout.getvalue(), type=TrainDocument)
    assert (ended, told.error.exit_code, told.state) == (code, code, view.state)


def test_what_goes_on_is_said(end, home):
    job = home.job()
    code, out = end(job, JobView(state="running"))
    assert code == 0
    assert f"The job is running. Follow it: sleap-rtc jobs attach {short(job.id)}" in (
        out.stderr.getvalue()
    )
    assert failure(job, JobView(state="running")) is None


def test_a_person_is_asked_for_a_name(end, home):
    model = home.model("a")
    other = home.model("b")
    home.alias("taken", other.id)
    job = home.job(models={"0": model.id})
    _, out = end(
        job,
        JobView(state="completed"),
        ask=True,
        terminal=True,
        stdin="y\n-bad-\ntaken\nflies\n",
        environment={"NO_COLOR": "1"},
    )
    said = out.stderr.getvalue()
    assert "Download" not in said  # it is home
    assert "it starts with '-'" in said
    assert "already names" in said
    assert "It is called flies." in said
    with home.library as library:
        assert library.get("flies").id == model.id


def test_nothing_is_asked_that_was_answered(end, home):
    model = home.model("a")
    named = home.job(models={"0": model.id}, alias="flies")
    _, out = end(named, JobView(state="completed"), ask=True, terminal=True)
    assert "?" not in out.stderr.getvalue()
    _, out = end(home.job(2), JobView(state="completed"), ask=True, terminal=True)
    assert "?" not in out.stderr.getvalue()


def test_no_thanks(end, home):
    model = home.model("a", files=False)
    job = home.job(models={"0": model.id}, download=False)
    code, out = end(job, JobView(state="completed"), ask=True, terminal=True, stdin="n\nn\n")
    assert code == 0
    assert "Download the trained model? [Y/n]" in out.stderr.getvalue()
    assert "Give it a friendly name? [y/N]" in out.stderr.getvalue()


def test_a_tracking(end, home, tmp_path):
    target = tmp_path / "v.slp"
    target.write_bytes(b"")
    arrived = str(tmp_path / "arrived")
    job = home.job(track=True, output=arrived, targets={"videos/0/v.mp4": str(target)})
    _, out = end(job, JobView(state="completed"), as_json=True)
    told = msgspec.json.decode(out.stdout.getvalue(), type=TrackDocument)
    assert [(one.video, one.predictions) for one in told.predictions] == [("v.mp4", str(target))]
    assert told.models[0].package == "ab" * 32
    code, out = end(job, JobView(state="failed", reason="boom"), as_json=True)
    told = msgspec.json.decode(out.stdout.getvalue(), type=TrackDocument)
    assert (code, told.predictions) == (1, ())


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "may not have reached gpu-1"),
        ("queued", "waits for the job's data"),
        ("preparing", "waits for the job's data"),
        ("running", "The job goes on on gpu-1."),
        ("completed", "What is not home yet stays on gpu-1"),
    ],
)
def test_what_ctrl_c_says(home, state, said):
    job = home.job()
    words = _goes_on(job, JobView(state=state))
    assert said in words
    assert f"sleap-rtc jobs attach {short(job.id)}" in words
