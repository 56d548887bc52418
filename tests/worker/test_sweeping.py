"""What a worker removes when it is idle, and what it never touches."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.durable import TEMPORARY
from sleap_rtc.jobs.events import StateChanged
from sleap_rtc.jobs.lifecycle import JobView, replay
from sleap_rtc.jobs.spec import JobSpec, ModelRef, TrackSpec
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobStore
from sleap_rtc.worker.runner.logfile import LogReader, LogWriter
from sleap_rtc.worker.sweeping import DAY_S, Sweeper

WAYS = {
    "queued": (),
    "held": ("paused",),
    "running": ("assigned", "preparing", "running"),
    "interrupted": ("assigned", "preparing", "running", "interrupted"),
    "completed": ("assigned", "preparing", "running", "finishing", "completed"),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}


def now() -> datetime:
    return datetime.now(UTC)


def package(number: int) -> str:
    return f"{number:064x}"


class Place:
    """A worker's directory."""

    def __init__(self, root, registry) -> None:
        self.root = root
        self.registry = registry
        self.store = JobStore(root / "jobs")
        self.later_s = 0.0
        self.jobs_size = 10**9
        self.views = 0

    def job(self, number: int, way: str, *, model: int = 99):
        models = (ModelRef(id="0a1b2c3d", package=package(model)),)
        spec = JobSpec(
            id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
            engine="tiny",
            work=TrackSpec(models=models, videos=("v.mp4",)),
            inputs=PackageRef(id=package(number), size=1, files=1, listing=50),
            room="a" * 32,
        )
        job = self.store.create(spec, clock=now)
        with job.claim(), LogWriter(job.log, clock=now) as log:
            for state in WAYS[way]:
                log.append(StateChanged(state=state))
        (job.stage(0) / "attempt-1").mkdir(parents=True)
        return job

    def make(self, folder: str, name: str, *, days: float = 0.0):
        path = self.root / folder / name
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"data")
        for each in (path / "file", path):
            os.utime(each, (time.time() - days * DAY_S,) * 2)
        return path

    def view(self, job) -> JobView:
        self.views += 1
        return replay(LogReader(job.log).read())

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(
            root=self.root,
            store=self.store,
            registry=self.registry,
            view=self.view,
            keep_inputs=14,
            keep_partial=3,
            keep_jobs=90,
            keep_jobs_size=self.jobs_size,
            clock=lambda: time.time() + self.later_s,
        )


@pytest.fixture
def place(tmp_path):
    with Registry(tmp_path / "models", index_dir=tmp_path / "index") as registry:
        yield Place(tmp_path, registry)


async def test_data_that_nobody_needs_goes_when_it_is_old(place):
    old, fresh = place.make("datasets", package(1), days=15), place.make("datasets", package(2))
    partial = place.make("incoming", f"{package(3)}-0123456789abcdef", days=4)
    arriving = place.make("incoming", f"{package(4)}-0123456789abcdef", days=2)
    strange = place.make("datasets", "my notes", days=400)
    assert await place.sweeper.sweep(set) == 2
    assert [p.exists() for p in (old, fresh, partial, arriving, strange)] == [
        *(False, True, False, True, True)
    ]
    assert sorted(p.name for p in (place.root / "datasets").iterdir()) == [
        package(2),
        "my notes",
    ]


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_job_needs_stays_for_as_long_as_it_may_go_on(place, way):
    job = place.job(1, way, model=2)
    data = place.make("datasets", package(1), days=400)
    model = place.make("datasets", package(2), days=400)
    sealed = place.make("datasets", f"{package(1)}.sealed", days=400)
    partial = place.make("incoming", f"{package(1)}-0123456789abcdef", days=400)
    lives = way not in ("completed", "failed", "cancelled")
    place.later_s = 89 * DAY_S
    await place.sweeper.sweep(set)
    assert [p.exists() for p in (data, model, sealed, partial, job.stages)] == [lives] * 5
    assert job.log.exists()
    place.later_s = 400 * DAY_S
    await place.sweeper.sweep(set)
    assert job.root.exists() is lives


async def test_what_attempts_left_stays_for_a_while(place):
    job = place.job(1, "failed")
    place.later_s = 2.9 * DAY_S
    await place.sweeper.sweep(set)
    assert job.stages.exists()
    place.later_s = 3.1 * DAY_S
    await place.sweeper.sweep(set)
    assert not job.stages.exists()


async def test_jobs_that_have_ended_go_when_they_are_old_or_take_too_much(place):
    jobs = [place.job(number, "completed") for number in range(1, 5)]
    waiting = place.job(5, "queued")
    for job in jobs:
        (job.root / "predictions").mkdir()
        (job.root / "predictions" / "v.slp").write_bytes(bytes(1_000_000))
    place.jobs_size = 0
    place.later_s = 2 * DAY_S
    await place.sweeper.sweep(set)
    assert all(job.log.exists() for job in jobs)  # whoever asked for them may still be to come
    place.later_s = 4 * DAY_S
    place.jobs_size = 2_500_000
    sweeper = place.sweeper
    assert await sweeper.sweep(set) == 4  # what their attempts left
    assert await sweeper.sweep(set) == 2
    assert [job.root.exists() for job in jobs] == [False, False, True, True]
    assert await sweeper.sweep(set) == 0
    place.later_s = 91 * DAY_S
    await place.sweeper.sweep(set)
    assert [path.name for path in place.store.root.iterdir()] == [waiting.root.name]


async def test_a_job_that_was_removed_and_is_submitted_once_more_is_another_one(place):
    sweeper = place.sweeper
    job = place.job(1, "completed")
    place.later_s = 91 * DAY_S
    await sweeper.sweep(set)
    assert not job.root.exists()
    again = place.job(1, "interrupted")
    data = place.make("datasets", package(1), days=400)
    await sweeper.sweep(set)
    assert (again.root, again.stages.exists(), data.exists()) == (job.root, True, True)


async def test_data_that_a_job_needs_since_a_moment_ago_stays(place):
    data = place.make("datasets", package(1), days=400)
    sweeper = place.sweeper
    found = list(sweeper.look())
    assert [leftover.path for leftover in found] == [data]
    assert sweeper.set_aside(found, {package(1)}) == []
    assert data.exists()


async def test_a_sweep_that_was_killed_is_finished_by_the_next(place):
    place.make("datasets", package(1), days=400)
    sweeper = place.sweeper
    [aside] = sweeper.set_aside(list(sweeper.look()), set())
    assert aside.name.startswith(TEMPORARY)
    await place.sweeper.sweep(set)
    assert list((place.root / "datasets").iterdir()) == []


async def test_jobs_that_never_became_whole_go_after_a_day(place):
    half = place.make("jobs", f"{TEMPORARY}0123", days=0.5)
    old = place.make("jobs", f"{TEMPORARY}4567", days=1.5)
    await place.sweeper.sweep(set)
    assert (half.exists(), old.exists()) == (True, False)


async def test_a_job_that_cant_be_read_is_left_alone_and_stops_nothing(place):
    job = place.job(1, "failed")
    job.spec.write_text("{")
    place.job(2, "queued")
    unneeded = place.make("datasets", package(7), days=400)
    needed = place.make("datasets", package(2), days=400)
    await place.sweeper.sweep(set)
    assert (unneeded.exists(), needed.exists()) == (False, True)


async def test_the_log_of_an_ended_job_is_read_once(place):
    place.job(1, "completed")
    place.job(2, "queued")
    sweeper = place.sweeper
    for _ in range(3):
        await sweeper.sweep(set)
    assert place.views == 1 + 3


async def test_an_empty_directory_is_swept(place):
    assert await place.sweeper.sweep(set) == 0


async def test_the_library_has_its_manifest_afterwards(place):
    manifest = place.registry.models_dir / "manifest.json"
    await place.sweeper.sweep(set)
    assert not manifest.exists()
    place.registry.models_dir.mkdir()
    await place.sweeper.sweep(set)
    assert manifest.exists()


async def test_what_came_of_a_push_that_nobody_went_on_with_goes(place):
    incoming = place.registry.incoming
    for number in (1, 2):
        folder = incoming / f"{package(number)}-{'0' * 16}"
        folder.mkdir()
        (folder / "journal").write_text("")
    being_made = incoming / f"{TEMPORARY}0123"
    being_made.mkdir()
    assert await place.sweeper.sweep(set) == 0
    place.later_s = 8 * DAY_S
    assert await place.sweeper.sweep(lambda: {package(2)}) == 1
    assert {path.name[:64] for path in incoming.iterdir() if path != being_made} == {package(2)}
    assert being_made.exists()  # the registry's own, which looks when it was made
