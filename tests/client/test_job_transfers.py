"""What is on its way for jobs, as far as this machine has seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sleap_rtc.client.job_transfers import is_all_home, of_jobs
from sleap_rtc.client.submitted import SubmittedJob
from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec, TrainSpec, TrainStage

VIDEO = PackageRef(id="1" * 64, size=5, files=1, listing=50)
MODEL = PackageRef(id="2" * 64, size=7, files=1, listing=50)
TRACK = TrackSpec(
    models=(ModelRef(id="0a1b2c3d", package=MODEL.id, offered=MODEL),), videos=("v.mp4",)
)
TRAIN = TrainSpec(
    labels="labels/a.slp",
    stages=tuple(
        TrainStage(config=f"configs/{n}/c.yaml", model_type=head, run_name="run")
        for n, head in enumerate(("centroid", "centered_instance"))
    ),
    dataset_name="a.slp",
    dataset_hash="0" * 64,
)


def job(work: TrackSpec | TrainSpec = TRACK, **changes: Any) -> SubmittedJob:
    return SubmittedJob(
        spec=JobSpec(
            id=make_uuid7(unix_ms=1_000, randomness=bytes(10)),
            engine="tiny",
            work=work,
            inputs=VIDEO,
            room="a" * 32,
        ),
        room="a" * 32,
        worker="gpu-1",
        device="2" * 64,
        submitted_at=datetime(2026, 1, 2, tzinfo=UTC),
        files={},
        **changes,
    )


@pytest.mark.parametrize(
    ("state", "direction", "waits"),
    [
        ("unsent", "send", True),
        ("queued", "send", False),
        ("preparing", "send", False),
        ("running", None, None),
        ("failed", None, None),
        ("completed", "fetch", True),
    ],
)
def test_what_is_on_its_way(state: str, direction: str | None, waits: bool | None) -> None:
    found = of_jobs([job(state=state)])
    assert [each.direction for each in found] == ([direction] if direction else [])
    assert [each.waits_for_us for each in found] == ([] if waits is None else [waits])
    assert [each.size for each in found] == ([] if not direction else [12 * (direction == "send")])


def test_what_is_home_or_stays_is_not_on_its_way() -> None:
    assert of_jobs([job(state="completed", home=("predictions",))]) == []
    assert of_jobs([job(state="completed", download=False)]) == []
    assert not is_all_home(job(TRAIN, state="completed", home=("model 0",)))
    assert is_all_home(job(TRAIN, state="completed", home=("model 0", "model 1")))
    assert not is_all_home(job(TRAIN, state="running", home=("model 0", "model 1")))
