"""The jobs of a worker before their runners have them: queued, prepared, cancelled, taken up.

What happens with runners is in tests/worker/runner and tests/endtoend.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from sleap_rtc.domain.ids import make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import (
    Busy,
    Conflict,
    EngineMissing,
    IllegalTransition,
    NotPermitted,
    OutOfSpace,
    UnknownJob,
)
from sleap_rtc.jobs.events import ErrorTold, StateChanged
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.worker.job_directory import JobStore
from sleap_rtc.worker.manager import JobManager
from sleap_rtc.worker.peers import Asker
from sleap_rtc.worker.runner.logfile import LogWriter

ADA = Asker(device="1" * 64, name="ada", role="member", session="s")
BOB = Asker(device="2" * 64, name="bob", role="member", session="t")
OWNER = Asker(device="3" * 64, name="eve", role="owner", session="u")


def now() -> datetime:
    return datetime.now(UTC)


def spec(number: int, name: str = "flies.slp") -> JobSpec:
    stage = TrainStage(config="configs/0/c.yaml", model_type="centroid", run_name="run")
    return JobSpec(
        id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
        engine="tiny",
        work=TrainSpec(
            labels="labels/a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        ),
        inputs=PackageRef(id="1" * 64, size=1, files=1, listing=50),
        room="a" * 32,
        name=name,
    )


class Preparing:
    """Prepares as a test tells it to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.fail: Exception | None = None
        self.jobs: list[str] = []

    async def __call__(self, job, spec, log, tell) -> None:
        self.jobs.append(spec.name)
        self.begun.set()
        if self.fail is not None:
            raise self.fail
        await asyncio.Event().wait()


async def never(job):
    raise AssertionError(f"{job} needed no recovery")


@pytest.fixture
def preparing():
    return Preparing()


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


@pytest.fixture
def manager(store, preparing):
    return JobManager(store, prepare=preparing, recover=never, clock=now)


@contextlib.asynccontextmanager
async def at_work(manager):
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(manager, job_id, state):
    """The events of a job, until it is in this state."""
    events = []
    async with asyncio.timeout(5):
        async for event in manager.follow(job_id, 0):
            events.append(event)
            if isinstance(event.body, StateChanged) and event.body.state == state:
                return events
    raise AssertionError


async def test_the_same_job_twice_is_one(manager):
    one = await manager.submit(spec(1), ADA)
    again = await manager.submit(spec(1), ADA)
    assert (one.id, one.state, one.mine) == (again.id, "queued", True)
    assert manager.active == 1


async def test_an_id_of_somebody_else_is_refused(manager):
    await manager.submit(spec(1), ADA)
    with pytest.raises(NotPermitted, match="another device"):
        await manager.submit(spec(1), BOB)
    with pytest.raises(Conflict, match="something else"):
        await manager.submit(spec(1, name="mice.slp"), ADA)


async def test_the_newest_job_is_listed_first(manager):
    for number in (1, 2, 3):
        await manager.submit(spec(number, name=str(number)), ADA)
    assert [j.name for j in manager.list(limit=2, device=BOB.device)] == ["3", "2"]
    assert not any(j.mine for j in manager.list(limit=9, device=BOB.device))


async def test_jobs_are_prepared_in_the_order_in_which_they_came(manager, preparing):
    first, second = spec(1, name="first"), spec(2, name="second")
    await manager.submit(first, ADA)
    await manager.submit(second, ADA)
    preparing.fail = EngineMissing(engine="tiny", where="here")
    async with at_work(manager):
        await until(manager, second.id, "failed")
    assert preparing.jobs == ["first", "second"]


async def test_what_preparing_refuses_is_told_with_its_code(manager, preparing):
    preparing.fail = EngineMissing(engine="tiny", where="worker gpu-1")
    job = spec(1)
    async with at_work(manager):
        await manager.submit(job, ADA)
        events = await until(manager, job.id, "failed")
    told = next(e.body for e in events if isinstance(e.body, ErrorTold))
    assert told.code == "engine_missing"
    assert told.message == "The engine 'tiny' is not installed on worker gpu-1."
    assert "engine install" in told.hint


async def test_a_fault_of_ours_ends_the_job_and_not_the_worker(manager, preparing):
    preparing.fail = OSError(36, "File name too long")
    first, second = spec(1), spec(2)
    async with at_work(manager):
        await manager.submit(first, ADA)
        events = await until(manager, first.id, "failed")
        await manager.submit(second, ADA)
        await until(manager, second.id, "failed")
    told = next(e.body for e in events if isinstance(e.body, ErrorTold))
    assert "its log says more" in told.message


async def test_a_queued_job_is_cancelled_at_once(manager):
    job = spec(1)
    await manager.submit(job, ADA)
    await manager.command(job.id, "c1", "cancel", ADA)
    await manager.command(job.id, "c1", "cancel", ADA)
    view = manager.view(manager.get(job.id))
    assert (view.state, view.commands) == ("cancelled", ("c1",))
    assert manager.active == 0


async def test_a_job_that_is_being_prepared_is_cancelled(manager, preparing):
    job, following = spec(1), spec(2, name="next")
    async with at_work(manager):
        await manager.submit(job, ADA)
        await preparing.begun.wait()
        await manager.submit(following, ADA)
        await manager.command(job.id, "c1", "cancel", OWNER)
        await until(manager, job.id, "cancelled")
        await until(manager, following.id, "preparing")


async def test_only_the_submitter_and_owners_command(manager):
    job = spec(1)
    await manager.submit(job, ADA)
    with pytest.raises(NotPermitted, match="The job is ada's"):
        await manager.command(job.id, "c1", "cancel", BOB)
    with pytest.raises(NotPermitted, match="The job is ada's"):
        await manager.retry(job.id, BOB)
    await manager.command(job.id, "c1", "cancel", OWNER)


async def test_commands_that_make_no_sense_are_refused(manager):
    job = spec(1)
    await manager.submit(job, ADA)
    with pytest.raises(IllegalTransition, match="queued; stop"):
        await manager.command(job.id, "c1", "stop", ADA)
    with pytest.raises(UnknownJob):
        await manager.command(spec(9).id, "c2", "cancel", ADA)


async def test_a_worker_that_ended_while_preparing_prepares_again(store, preparing):
    job = spec(1)
    first = JobManager(store, prepare=preparing, recover=never, clock=now)
    async with at_work(first):
        await first.submit(job, ADA)
        await preparing.begun.wait()
    again = JobManager(store, prepare=preparing, recover=never, clock=now)
    assert again.view(again.get(job.id)).state == "preparing"
    preparing.begun.clear()
    async with at_work(again):
        await preparing.begun.wait()
        states = [
            e.body.state
            for e in await until(again, job.id, "interrupted")
            if isinstance(e.body, StateChanged)
        ]
    assert states == ["queued", "assigned", "preparing", "interrupted"]
    assert preparing.jobs == ["flies.slp", "flies.slp"]


async def test_a_job_without_its_runner_is_recovered_at_the_start(store, preparing):
    recovered = []

    async def recover(job):
        recovered.append(job.root.name)

    job = spec(1)
    directory = store.create(job, clock=now)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for state in ("assigned", "preparing", "running"):
            log.append(StateChanged(state=state))
    manager = JobManager(store, prepare=preparing, recover=recover, clock=now)
    async with at_work(manager):
        await manager.submit(spec(2), ADA)
        await preparing.begun.wait()
    assert recovered == [job.id]


async def test_recovery_waits_for_a_killed_runner_to_let_go_and_tells_who_follows(
    store, preparing, monkeypatch
):
    monkeypatch.setattr("sleap_rtc.worker.manager.SETTLE_FIRST_S", 0.0)
    job = spec(1)
    directory = store.create(job, clock=now)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for state in ("assigned", "preparing", "running"):
            log.append(StateChanged(state=state))
    refusals = [Busy(what="The job", by=""), OutOfSpace(path="/", free="0 B", need="1 B")]
    waits = asyncio.Event()

    async def recover(found):
        await waits.wait()
        if refusals:
            raise refusals.pop()
        with found.claim(), LogWriter(found.log, clock=now) as log:
            log.append(StateChanged(state="interrupted"))

    manager = JobManager(store, prepare=preparing, recover=recover, clock=now)
    async with at_work(manager):
        following = manager.follow(job.id, 4)
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        waits.set()
        event = await asyncio.wait_for(waiting, 5)
        assert event.body.state == "interrupted"
        await following.aclose()
    assert refusals == []


async def test_an_interrupted_job_goes_on_when_it_is_asked_to(store, preparing):
    job = spec(1)
    directory = store.create(job, clock=now)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for state in ("assigned", "preparing", "running", "interrupted"):
            log.append(StateChanged(state=state))
    manager = JobManager(store, prepare=preparing, recover=never, clock=now)
    async with at_work(manager):
        await manager.retry(job.id, OWNER)
        await preparing.begun.wait()
        with pytest.raises(IllegalTransition):
            await manager.retry(job.id, OWNER)


async def test_following_begins_behind_what_is_known(manager):
    job = spec(1)
    await manager.submit(job, ADA)
    following = manager.follow(job.id, 1)
    waiting = asyncio.ensure_future(anext(following))
    await manager.command(job.id, "c1", "cancel", ADA)
    event = await asyncio.wait_for(waiting, 5)
    assert event.n == 2
    await following.aclose()
