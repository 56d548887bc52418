"""The main job by its commands: server, worker and client as processes, and what is typed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import msgspec
import pytest

from sleap_rtc.cli.job_documents import (
    JobDocument,
    JobsDocument,
    LogDocument,
    TrackDocument,
    TrainDocument,
)
from sleap_rtc.cli.model_documents import WorkerModelsDocument
from sleap_rtc.cli.storage_documents import PlanDocument
from sleap_rtc.testing import netns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.webrtc,
    pytest.mark.timeout(300),
    pytest.mark.skipif(netns.inside() is None, reason="WebRTC needs an address besides loopback"),
]


class Lab:
    """A server, a worker ``gpu-1`` in the room ``lab``, and a laptop."""

    def __init__(self, start, host, tmp_path):
        self._start = start
        self.laptop = tmp_path / "laptop"
        self.typed("login", host.url, "--code-file", "-", stdin=host.code)
        self.typed("room", "create", "lab")
        link = self.typed("room", "invite", "--role", "worker").out.strip()
        self.worker_dir = tmp_path / "gpu-1"
        self.worker = start(
            tmp_path / "machine",
            *("worker", "--room", link, "--name", "gpu-1", "--dir", self.worker_dir),
        )
        assert "online in room lab" in self.worker.popen.stdout.readline()

    def start(self, *arguments):
        return self._start(self.laptop, *arguments)

    def typed(self, *arguments, code=0, stdin=None):
        done = self.start(*arguments).end(stdin)
        assert done.code == code, done.err
        return done

    def document(self, kind, *arguments, code=0):
        """What ``--json`` printed, which is all of standard output, in its whole shape."""
        plain = json.loads(self.typed(*arguments, "--json", code=code).out)
        return msgspec.convert(plain, kind)


@pytest.fixture
def lab(start, host, tmp_path):
    return Lab(start, host, tmp_path)


def exported(data, write_config, folder):
    """A training package as SLEAP's window for training exports it."""
    path = folder / "flies.training_job.zip"
    jobs = ["training:"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(data.package, "labels.v001.pkg.slp")
        for head in ("centroid", "centered_instance"):
            archive.write(write_config(head), f"{head}.yaml")
            jobs.append(f"- cfg: {head}.yaml")
            jobs.append(f"  run_path: models/260101_120000.{head}.n=4")
            jobs.append("  train_labels: labels.v001.pkg.slp")
        archive.writestr("jobs.yaml", "\n".join([*jobs, "inference: []"]))
        archive.writestr("train-script.sh", "#!/bin/bash\nsleap-nn-train centroid.yaml\n")
    return path


def test_train_follow_and_track(lab, data, write_config, tmp_path):
    training = ("train", exported(data, write_config, tmp_path), "--engine", "tiny")
    done = lab.typed(*training, "--alias", "flies", "--yes", "--json")
    told = msgspec.convert(json.loads(done.out), TrainDocument)
    assert told.state == "completed"
    assert [model.alias for model in told.models] == ["flies:centroid", "flies:centered_instance"]
    assert all(model.local and model.epochs == 3 for model in told.models)
    for said in (
        "Labels   flies.training_job.zip: 4 labelled frames",
        "centroid (3 epochs), then centered_instance (3 epochs), with tiny",
        "To       gpu-1:",
        "encrypted end to end",
        "epoch 3 of 3, train loss ",
        "is home: ",
        "It is called flies",
        "sleap-rtc track --model flies VIDEO.mp4",
    ):
        assert said in done.err
    assert "\x1b" not in done.err

    # What is there now.
    (job,) = lab.document(JobsDocument, "jobs").jobs
    assert (job.id, job.state) == (told.job, "completed")
    (theirs,) = lab.document(JobsDocument, "jobs", "--worker", "gpu-1").jobs
    assert (theirs.id, theirs.current, theirs.mine) == (told.job, True, True)
    shown = lab.document(JobDocument, "jobs", "show", told.job[-8:])
    assert [stage.epochs_done for stage in shown.stages] == [3, 3]
    assert "centroid" in lab.typed("jobs", "show", told.job).out
    log = lab.document(LogDocument, "jobs", "logs", told.job)
    assert log.job == told.job
    assert lab.typed("jobs", "logs", "-f", told.job[-8:]).out.splitlines() == list(log.lines)
    assert lab.typed("jobs", "stop", told.job, code=4).err.startswith("error: The job is completed")
    assert lab.typed("jobs", "cancel", told.job[-8:], "--worker", "gpu-1", code=4)

    # The same name again is refused before anything is sent.
    again = lab.typed(*training, "--alias", "flies", "--yes", code=4)
    assert "Choose another --alias" in again.err
    assert "Sent " not in again.err

    # Here and there give the same predictions.
    here, there = tmp_path / "here.slp", tmp_path / "there"
    track = ("track", "--model", "flies", data.video)
    local = lab.document(TrackDocument, *track, "-o", here)
    assert [one.predictions for one in local.predictions] == [str(here)]
    remote = lab.typed(*track, "-o", there, "--remote", "--worker", "gpu-1", "--json")
    shown = msgspec.convert(json.loads(remote.out), TrackDocument)
    assert shown.models == local.models
    assert (shown.worker, shown.state) == ("gpu-1", "completed")
    (one,) = shown.predictions
    assert one.predictions == str(there / f"{data.video.name}.predictions.slp")
    assert Path(one.predictions).stat().st_size > 0
    for model in local.models:
        assert model.package[:12] in remote.err
    assert not list((lab.laptop / "predictions").glob("*"))
    refused = lab.typed(*track, "-o", here, "--remote", "--worker", "gpu-1", code=4)
    assert "--overwrite" in refused.err

    # What is imported is pushed, and tracked with there.
    for model in told.models:
        copy = tmp_path / "copies" / f"my-{model.model_type}"
        shutil.copytree(model.path, copy, ignore=shutil.ignore_patterns(".record", "model.json"))
        (copy / "notes.txt").write_text("another model, with other content")
    lab.typed("import-model", tmp_path / "copies", "--recursive")
    lab.typed("tag-model", "my-centroid", "my-centered_instance", "mine")
    lab.typed("push-model", "mine", "--worker", "gpu-1")
    remote = ("track", "--model", "mine", data.video, "-o", tmp_path / "mine")
    pushed = lab.document(TrackDocument, *remote, "--remote", "--worker", "gpu-1")
    assert {model.package for model in pushed.models}.isdisjoint(m.package for m in local.models)
    (again,) = pushed.predictions
    assert Path(again.predictions).stat().st_size == Path(one.predictions).stat().st_size
    theirs = lab.document(WorkerModelsDocument, "worker", "list-models").models
    assert {model.package for model in pushed.models} < {model.package for model in theirs}

    # doctor sees it all.
    healthy = lab.typed("doctor")
    assert "workers of lab: 1 worker online: gpu-1" in healthy.out


def test_ctrl_c_lets_go_and_attach_takes_up(lab, data, write_config):
    config = write_config(epochs=4, steps=250)
    training = lab.start("train", data.package, "-c", config, "--engine", "tiny", "--yes")
    training.until("epoch 1 of 4")
    training.interrupt()
    ended = training.end()
    assert ended.code == 130
    assert ended.out == ""
    (job,) = lab.document(JobsDocument, "jobs").jobs
    sentence = f"The job goes on on gpu-1. Follow it: sleap-rtc jobs attach {job.id[-8:]}; "
    assert f"error: Interrupted. {sentence}" in ended.err
    assert "Traceback" not in ended.err
    told = lab.document(TrainDocument, "jobs", "attach", job.id[-8:])
    assert told.state == "completed"
    assert told.models[0].local
    assert told.models[0].epochs == 4


def test_detached_paused_resumed_and_cancelled(lab, data, write_config):
    config = write_config(epochs=40, steps=250)
    training = ("train", data.package, "-c", config, "--engine", "tiny", "--yes", "--detach")
    done = lab.typed(*training[:-1], "--explain", "--transport", "s3", "--json")
    plan = msgspec.convert(json.loads(done.out), PlanDocument)
    assert [way.way for way in plan.ways] == ["s3", "webrtc"]
    assert plan.stored == 0
    assert "Nothing was sent." in done.err

    done = lab.typed(*training, "--json")
    told = msgspec.convert(json.loads(done.out), TrainDocument)
    # The data is stored: nobody has to wait until the worker has it.
    assert told.state in ("queued", "assigned", "preparing", "running")
    assert "by the room's storage" in done.err
    assert re.search(r"Stored   .* sent; kept for a day as\n +uploads/", done.err)
    name = told.job[-8:]
    for command in ("pause", "resume"):
        assert f"Job {name}" in lab.typed("jobs", command, name).err
    attached = lab.start("jobs", "attach", name)
    attached.until("epoch ")
    assert json.loads(lab.typed("jobs", "cancel", name, "--json").out) == {
        "job": told.job,
        "command": "cancel",
    }
    ended = attached.end()
    assert ended.code == 130
    assert "was cancelled" in ended.err
    assert lab.document(JobDocument, "jobs", "show", name).job.state == "cancelled"
    again = lab.typed("jobs", "cancel", name)
    assert again.err == f"Job {name} is cancelled already; nothing was changed.\n"


def test_an_interrupted_training_goes_on(lab, data, write_config):
    config = write_config(epochs=6, steps=250)
    training = lab.start("train", data.package, "-c", config, "--engine", "tiny", "--yes")
    training.until("epoch 2 of 6")
    (trainer,) = lab.worker_dir.glob("jobs/*/trainer.json")
    os.kill(json.loads(trainer.read_text())["process"]["pid"], 9)
    ended = training.end()
    assert ended.code == 1
    assert "was interrupted" in ended.err
    assert "sleap-rtc jobs retry" in ended.err
    model = lab.typed("list-models", "-q", "--status", "interrupted").out.strip()
    resumed = lab.typed("train", "--resume", model, "--yes", "--json")
    told = msgspec.convert(json.loads(resumed.out), TrainDocument)
    assert told.state == "completed"
    assert told.models[0].epochs == 6
    assert "from epoch " in resumed.err


class Terminal:
    """``sleap-rtc`` on a terminal of 90 columns, and the person before it."""

    def __init__(self, home, *arguments):
        self.screen = ""
        self._mine, theirs = pty.openpty()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "sleap_rtc", *map(str, arguments)],
            env=os.environ
            | {"SLEAP_RTC_HOME": str(home), "TERM": "xterm", "COLUMNS": "90", "NO_COLOR": ""},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def read(self, *, within):
        """What comes next; False at the end."""
        if not select.select([self._mine], [], [], within)[0]:
            return True
        try:
            data = os.read(self._mine, 65536)
        except OSError:  # nobody has the other end any more
            return False
        self.screen += data.decode("utf-8", "replace")
        return bool(data)

    def answer(self, question, text):
        end = time.monotonic() + 120
        while question not in self.screen:
            assert time.monotonic() < end, self.screen
            assert self.read(within=1), self.screen
        os.write(self._mine, f"{text}\n".encode())

    def end(self):
        try:
            while self.read(within=120):
                pass
            return self.popen.wait(60)
        finally:
            os.close(self._mine)
            if self.popen.poll() is None:
                self.popen.kill()
                self.popen.wait()


def test_a_person_at_a_terminal_is_asked(lab, data, write_config):
    config = write_config(epochs=3, steps=100)
    person = Terminal(lab.laptop, "train", data.package, "-c", config, "--engine", "tiny")
    person.answer("Send it and train? [Y/n]", "")
    person.answer("Download the trained model? [Y/n]", "y")
    person.answer("Give it a friendly name? [y/N]", "y")
    person.answer("Name (empty for none):", "latest")
    person.answer("the word is reserved", "flies")
    assert person.end() == 0
    assert "It is called flies." in person.screen
    assert "sleap-rtc track --model flies VIDEO.mp4" in person.screen
    # Progress was redrawn in place, with a bar, and no line of it was too long.
    assert re.search(r"\x1b\[\dA\x1b\[2K", person.screen)
    assert "━" in person.screen
    lines = re.sub(r"\x1b\[[0-9]*[A-Za-z]", "", person.screen).splitlines()
    assert max(len(line) for line in lines if "━" in line) < 90
    listed = lab.typed("list-models", "-q").out
    assert listed == "flies\n"


def test_a_person_says_no(lab, data, config):
    person = Terminal(lab.laptop, "train", data.package, "-c", config, "--engine", "tiny")
    person.answer("Send it and train? [Y/n]", "n")
    assert person.end() == 130
    assert "Nothing was sent." in person.screen
    assert lab.typed("jobs", "-q").out == ""
