from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sleap_rtc.cli.screen import JobScreen, moved
from sleap_rtc.cli.text import width_of
from sleap_rtc.client.following import AliasGiven, CameHome, Fetching, LinkChanged
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.places import Load
from sleap_rtc.jobs.events import (
    CommandReceived,
    EpochEnded,
    ErrorTold,
    JobEvent,
    Logged,
    OutputReady,
    Progress,
    StageStarted,
    StateChanged,
    Transferring,
)
from sleap_rtc.jobs.lifecycle import JobView, fold
from sleap_rtc.transfer.progress import Progress as Transfer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PACKAGE = PackageRef(id="1" * 64, size=1, files=1, listing=50)


class Watched:
    """A job and its screen."""

    def __init__(self, kind="train"):
        self.screen = JobScreen("gpu-1", kind)
        self.view = JobView()
        self.kept = []

    def happens(self, *bodies):
        for body in bodies:
            event = JobEvent(n=self.view.number + 1, at=NOW, body=body)
            self.view = fold(self.view, event)
            self.kept += self.screen.take(event, self.view)
        return self

    def hears(self, *updates):
        for update in updates:
            self.kept += self.screen.take(update, self.view)
        return self

    @property
    def drawn(self):
        return "\n".join(self.screen.lines())

    @property
    def said(self):
        return [line.text for line in self.kept]


def states(*names):
    return [StateChanged(state=name) for name in names]


def running(kind="train", epochs=20):
    watched = Watched(kind).hears(LinkChanged("up"))
    watched.happens(*states("queued", "assigned", "preparing", "running"))
    return watched.happens(StageStarted(stage=0, stages=2, name="flies.centroid", epochs=epochs))


def test_before_there_is_anything():
    watched = Watched()
    assert watched.drawn == "connecting to gpu-1 …"
    watched.hears(LinkChanged("up"))
    assert watched.drawn == "asking gpu-1 …"


def test_sending():
    watched = Watched().hears(LinkChanged("up"))
    watched.happens(*states("queued"))
    assert "waiting for gpu-1" in watched.drawn
    watched.happens(*states("assigned", "preparing"))
    assert "gpu-1 prepares" in watched.drawn
    watched.happens(
        Transferring(what="inputs", done=540_000_000, total=1_200_000_000, rate=32e6, eta_s=20.6)
    )
    assert "━━━━━━━━━━╌" in watched.drawn
    assert "540 MB of 1.2 GB, 45 %, 32 MB/s, 21 s left" in watched.drawn
    assert watched.screen.plain().startswith("sending to gpu-1: 540 MB")
    assert watched.said == ["gpu-1 has the job", "gpu-1 gets its data"]


def test_training():
    watched = running()
    assert watched.said[-1] == "Training 1 of 2: flies.centroid"
    assert "the engine starts" in watched.drawn
    watched.happens(Progress(stage=0, epoch=0, done=5, total=10, loss=0.5, eta_s=65))
    assert "epoch 1 of 20, batch 5 of 10, 1 min 05 s left" in watched.drawn
    assert "batch loss 0.5" in watched.drawn
    for epoch, val in enumerate((0.4, 0.1, 0.2)):
        watched.happens(
            EpochEnded(stage=0, epoch=epoch, train_loss=0.3, val_loss=val, learning_rate=0.003)
        )
    assert "train loss 0.3, val 0.2 (best 0.1, epoch 2), lr 0.003" in watched.drawn
    assert "█▁▅" in watched.drawn or "█▁▄" in watched.drawn
    assert watched.said[-1].startswith(
        "flies.centroid: epoch 3 of 20, train loss 0.3, val loss 0.2"
    )
    assert watched.kept[-1].redrawn
    watched.happens(Progress(stage=0, epoch=3, done=5, total=10))
    assert watched.drawn.startswith("━━━━╌")  # 3.5 of 20
    watched.happens(*states("paused"))
    assert watched.drawn.startswith("paused\n━━━━╌")
    watched.happens(CommandReceived(id="c", command="stop"))
    assert "stop is on its way" in watched.drawn
    assert watched.drawn.startswith("paused, stop is on its way\n")


def test_a_long_training_fits_80_columns():
    watched = running(epochs=2_000)
    for epoch in range(1_200):
        value = 0.000_012_345 / (1 + epoch)
        watched.happens(
            EpochEnded(
                stage=0, epoch=epoch, train_loss=value, val_loss=value, learning_rate=0.000123456
            )
        )
    watched.happens(Progress(stage=0, epoch=1_200, done=1_400, total=2_000, eta_s=86_399))
    watched.happens(*states("paused"), CommandReceived(id="c", command="stop"))
    assert max(width_of(line) for line in watched.screen.lines()) <= 80


def test_how_busy_the_worker_is():
    for kind, epoch in (("train", 0), ("track", None)):
        watched = running(kind)
        load = Load(cpu=39.6, gpu=87.0, gpu_memory=10**9)
        watched.happens(Progress(stage=0, epoch=epoch, done=5, total=10, load=load))
        assert watched.drawn.endswith("\nGPU 87 %, CPU 40 %")
        watched.happens(Progress(stage=0, epoch=epoch, done=6, total=10, load=Load(cpu=100)))
        assert watched.drawn.endswith("\nCPU 100 %")


def test_a_job_that_is_held_before_it_began():
    watched = Watched().happens(*states("queued", "paused"))
    watched.hears(LinkChanged("up"))
    assert "paused before it began" in watched.drawn


def test_a_training_without_a_known_end():
    watched = running(epochs=None)
    watched.happens(EpochEnded(stage=0, epoch=0))
    assert "epoch 1 done" in watched.drawn
    assert "train loss -, val -" in watched.drawn


def test_going_on_from_a_checkpoint():
    watched = Watched().happens(*states("queued", "assigned", "preparing", "running"))
    watched.happens(StageStarted(stage=0, stages=1, name="run", epochs=10, first_epoch=4))
    assert watched.said[-1] == "Training: run, from epoch 5 on"
    watched.hears(LinkChanged("up"))
    assert "epoch 4 of 10 done" in watched.drawn


def test_tracking():
    watched = running("track", epochs=None)
    assert watched.said[-1] == "Tracking 1 of 2: flies.centroid"
    assert "the engine starts" in watched.drawn
    watched.happens(Progress(stage=0, done=50, total=100, rate=12.5, eta_s=4))
    assert "frame 50 of 100, 12.5 a second, 4.0 s left" in watched.drawn
    assert watched.screen.plain() == "flies.centroid: frame 50 of 100, 12.5 a second, 4.0 s left"


def test_models_come_home():
    watched = running()
    watched.happens(OutputReady(what="model", package=PACKAGE))
    assert watched.said[-1] == "flies.centroid is trained"
    watched.hears(Fetching("model 0", Transfer("receiving", done=1, total=4, rate=1e6)))
    assert "flies.centroid comes home" in watched.drawn
    assert watched.screen.plain() == "flies.centroid: 1 B of 4 B, 25 %, 1.0 MB/s"
    watched.hears(Fetching("predictions", Transfer("waiting", done=1, total=4)))
    assert "waiting, 1 B of 4 B" in watched.drawn
    watched.hears(CameHome("predictions", Path("out")))
    assert watched.said[-1] == "The predictions are home"
    assert "comes home" not in watched.drawn
    watched.hears(AliasGiven("flies"), AliasGiven("flies", refused="It is taken."))
    assert watched.said[-2:] == ["It is called flies", "No alias was given: It is taken."]


def test_the_connection():
    watched = running()
    watched.hears(LinkChanged("silent"))
    assert "gpu-1 is silent" in watched.drawn
    assert "the engine starts" in watched.drawn
    watched.hears(LinkChanged("up"), LinkChanged("down"))
    assert watched.said[-1] == "The connection to gpu-1 is lost; it is made anew"
    assert "not connected to gpu-1" in watched.drawn
    watched.hears(LinkChanged("up"))
    assert watched.said[-1] == "Connected to gpu-1 again"


@pytest.mark.parametrize("state", ["failed", "interrupted", "cancelled"])
def test_how_it_ended(state):
    watched = running()
    watched.happens(
        ErrorTold(code="training_failed", message="It failed.", log_tail=("boom",)),
        StateChanged(state=state, reason="a reason"),
    )
    assert watched.said[-2:] == ["boom", f"{state.capitalize()}: a reason"]
    assert watched.drawn == ""


def test_finishing():
    watched = running()
    watched.happens(Logged(line="a line of the trainer"), *states("finishing"))
    assert watched.said[-1] == "Finishing"
    assert "checks and packs" in watched.drawn
    watched.happens(*states("completed"))
    assert watched.drawn == ""


def test_bytes():
    assert moved(0, 0) == "0 B of 0 B, 100 %"
