"""The jobs of a worker before their runners have them: queued, prepared, cancelled, taken up.

What happens with runners is in tests/worker/runner and tests/endtoend.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from datetime import UTC, datetime

import msgspec
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
    QueueFull,
    UnknownJob,
    UsageError,
)
from sleap_rtc.jobs.eventlog import decode_line
from sleap_rtc.jobs.events import ErrorTold, Logged, StateChanged
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.worker.job_directory import JobStore
from sleap_rtc.worker.manager import JobManager
from sleap_rtc.worker.peers import Asker
from sleap_rtc.worker.runner import logfile
from sleap_rtc.worker.runner.logfile import LogWriter
from sleap_rtc.worker.waiting import Waiting

ADA = Asker(device="1" * 64, name="ada", role="member", session="s", worker="f" * 64)
BOB = Asker(device="2" * 64, name="bob", role="member", session="t", worker="f" * 64)
OWNER = Asker(device="3" * 64, name="eve", role="owner", session="u", worker="f" * 64)


def now() -> datetime:
    return datetime.now(UTC)


def spec(number: int, name: str = "flies.slp", package: str = "1") -> JobSpec:
    stage = TrainStage(config="configs/0/c.yaml", model_type="centroid", run_name="run")
    return JobSpec(
        id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
        engine="tiny",
        work=TrainSpec(
            labels="labels/a.slp", stages=(stage,), dataset_name="a.slp", dataset_hash="0" * 64
        ),
        inputs=PackageRef(id=package * 64, size=1, files=1, listing=50),
        room="a" * 32,
        name=name,
    )


class Preparing:
    """Prepares as a test tells it to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.fail: Exception | None = None
        self.full: Exception | None = None
        self.away: set[str] = set()
        self.jobs: list[str] = []
        self.forgotten: list[str] = []

    async def __call__(self, job, spec, log, tell):
        self.jobs.append(spec.name)
        self.begun.set()
        if spec.name in self.away:
            return "absent"
        if self.fail is not None:
            raise self.fail
        return await asyncio.Event().wait()

    async def seen(self, *jobs: str) -> None:
        """Wait until these jobs, and no others, were prepared in this order."""
        async with asyncio.timeout(60):
            while self.jobs != list(jobs):
                self.begun.clear()
                await self.begun.wait()

    def at_hand(self, spec) -> bool:
        return spec.name not in self.away

    def check_room(self, spec) -> None:
        if self.full is not None:
            raise self.full

    def forget(self, packages) -> None:
        self.forgotten += [package.id for package in packages]


async def never(job):
    raise AssertionError(f"{job} needed no recovery")


@pytest.fixture
def preparing():
    return Preparing()


@pytest.fixture
def store(tmp_path):
    return JobStore(tmp_path / "jobs")


def make(
    store,
    preparing,
    *,
    recover=never,
    most=100,
    most_each=100,
    removed=(),
    on_change=lambda: None,
):
    return JobManager(
        store,
        prepare=preparing,
        recover=recover,
        clock=now,
        waiting=Waiting(most=most, most_each=most_each),
        is_member=lambda device: device not in removed,
        on_change=on_change,
    )


@pytest.fixture
def manager(store, preparing):
    return make(store, preparing)


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
    async with asyncio.timeout(60):
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


async def test_jobs_stand_in_the_order_in_which_they_came_whatever_their_ids_say(store, preparing):
    first = make(store, preparing)
    for number in (3, 1, 2):
        await first.submit(spec(number, name=str(number)), ADA)
    again = make(JobStore(store.root), preparing)
    assert [j.name for j in again.list(limit=2, device=ADA.device)] == ["2", "1"]
    preparing.fail = EngineMissing(engine="tiny", where="here")
    async with at_work(again):
        await until(again, spec(2).id, "failed")
    assert preparing.jobs == ["3", "1", "2"]


async def test_an_id_of_the_future_is_refused_and_one_that_waited_is_not(manager):
    await manager.submit(spec(1), ADA)
    for days, fails in ((3_000_000, True), (2, True), (0, False)):
        soon = int((now().timestamp() + 86_000) * 1000)
        ms = soon + days * 86_400_000
        job = msgspec.structs.replace(
            spec(1), id=make_uuid7(unix_ms=ms, randomness=bytes(9) + bytes([days % 256]))
        )
        if fails:
            with pytest.raises(UsageError, match=f"dated [0-9,]+ days ahead .* {now():%Y-%m-%d}"):
                await manager.submit(job, ADA)
        else:
            await manager.submit(job, ADA)
    assert manager.active == 2


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
    with pytest.raises(NotPermitted, match=r"The job is ada \(1111 1111 1111 1111\)'s"):
        await manager.command(job.id, "c1", "cancel", BOB)
    with pytest.raises(NotPermitted, match=r"The job is ada \(1111 1111 1111 1111\)'s"):
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
    first = make(store, preparing)
    async with at_work(first):
        await first.submit(job, ADA)
        await preparing.begun.wait()
    again = make(store, preparing)
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
    manager = make(store, preparing, recover=recover)
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

    manager = make(store, preparing, recover=recover)
    async with at_work(manager):
        following = manager.follow(job.id, 4)
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        waits.set()
        event = await asyncio.wait_for(waiting, 60)
        assert event.body.state == "interrupted"
        await following.aclose()
    assert refusals == []


async def test_an_interrupted_job_goes_on_when_it_is_asked_to(store, preparing):
    job = spec(1)
    directory = store.create(job, clock=now)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for state in ("assigned", "preparing", "running", "interrupted"):
            log.append(StateChanged(state=state))
    manager = make(store, preparing)
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
    event = await asyncio.wait_for(waiting, 60)
    assert event.n == 2
    await following.aclose()


def states_of(manager, job):
    view = manager.view(manager.get(job.id))
    return view.state, view.reason


async def test_an_absent_submitter_keeps_nobody_waiting(manager, preparing):
    away, here = spec(1, name="away"), spec(2, name="here")
    preparing.away = {"away"}
    preparing.fail = EngineMissing(engine="tiny", where="here")
    async with at_work(manager):
        await manager.submit(away, ADA)
        await until(manager, away.id, "preparing")
        await manager.submit(here, BOB)
        await until(manager, here.id, "failed")
        state, reason = states_of(manager, away)
        assert (state, reason) == (
            "queued",
            "Nobody offers its data; it goes on when ada (1111 1111 1111 1111) is back.",
        )
        assert manager.active == 1
        manager.look_again()  # it is somebody else who offers something
        await manager.submit(spec(3, name="next"), BOB)
        await until(manager, spec(3).id, "failed")
        assert preparing.jobs == ["away", "here", "next"]

        preparing.away.clear()
        manager.look_again()
        await until(manager, away.id, "failed")
    assert manager.active == 0


async def test_who_is_back_before_the_others_turn_comes_behind_them(manager, preparing):
    preparing.away = {"away"}
    names = ["away", "b", "c"]
    for number, name in enumerate(names, 1):
        await manager.submit(spec(number, name=name), ADA)
    preparing.fail = EngineMissing(engine="tiny", where="here")
    async with at_work(manager):
        await until(manager, spec(3).id, "failed")
        await until(manager, spec(1).id, "preparing")
    # Those first whose data is there.
    assert preparing.jobs == ["b", "c", "away"]


async def test_data_that_comes_at_the_moment_of_giving_up_is_seen(manager, preparing):
    job = spec(1, name="away")
    preparing.away = {"away"}
    at_hand = [False, True, True]
    preparing.at_hand = lambda _: at_hand.pop(0)
    async with at_work(manager):
        await manager.submit(job, ADA)
        await preparing.seen("away", "away")


async def test_pausing_while_the_data_arrives_lets_others_go_on(manager, preparing):
    first, second = spec(1, name="first"), spec(2, name="second", package="2")
    async with at_work(manager):
        await manager.submit(first, ADA)
        await preparing.begun.wait()
        await manager.submit(second, BOB)
        await manager.command(first.id, "c1", "pause", ADA)
        await manager.command(first.id, "c2", "pause", ADA)
        await until(manager, second.id, "preparing")
        assert states_of(manager, first) == ("paused", "by ada (1111 1111 1111 1111)")
        assert manager.active == 2
        with pytest.raises(IllegalTransition, match="stop is not possible"):
            await manager.command(first.id, "c3", "stop", ADA)

        await manager.command(first.id, "c4", "resume", ADA)
        assert states_of(manager, first) == ("queued", "resumed by ada (1111 1111 1111 1111)")
        await manager.command(second.id, "c5", "cancel", BOB)
        await preparing.seen("first", "second", "first")
    assert preparing.forgotten == [second.inputs.id]


async def test_a_pause_and_a_resume_at_once(manager, preparing):
    job = spec(1)
    async with at_work(manager):
        await manager.submit(job, ADA)
        await preparing.begun.wait()
        pause = asyncio.create_task(manager.command(job.id, "c1", "pause", ADA))
        await asyncio.create_task(manager.command(job.id, "c2", "resume", ADA))
        await pause
        await preparing.seen("flies.slp", "flies.slp")
    view = manager.view(manager.get(job.id))
    assert (view.state, view.commands) == ("preparing", ("c1", "c2"))


async def test_a_waiting_job_is_paused_resumed_and_cancelled(manager, preparing):
    job = spec(1)
    await manager.submit(job, ADA)
    await manager.command(job.id, "c1", "pause", ADA)
    assert states_of(manager, job)[0] == "paused"
    assert manager.idle
    await manager.command(job.id, "c2", "resume", ADA)
    assert not manager.idle
    await manager.command(job.id, "c3", "pause", ADA)
    await manager.command(job.id, "c4", "cancel", ADA)
    assert states_of(manager, job) == ("cancelled", "by ada (1111 1111 1111 1111)")
    assert manager.active == 0
    async with at_work(manager):
        assert preparing.jobs == []
    assert preparing.forgotten == [job.inputs.id]


async def test_what_is_cancelled_takes_nothing_away_from_others(manager, preparing):
    one, other = spec(1), spec(2)
    await manager.submit(one, ADA)
    await manager.submit(other, BOB)
    await manager.command(one.id, "c1", "cancel", ADA)
    assert preparing.forgotten == []
    await manager.command(other.id, "c2", "cancel", BOB)
    assert preparing.forgotten == [other.inputs.id]


async def test_a_held_job_stays_so_over_a_restart(store, preparing):
    job, other = spec(1, name="held"), spec(2, name="other")
    first = make(store, preparing)
    await first.submit(job, ADA)
    await first.command(job.id, "c1", "pause", ADA)
    again = make(store, preparing)
    async with at_work(again):
        await again.submit(other, BOB)
        await until(again, other.id, "preparing")
        assert states_of(again, job)[0] == "paused"
        assert again.active == 2
        assert preparing.jobs == ["other"]
        await again.command(job.id, "c2", "resume", OWNER)
        assert states_of(again, job) == ("queued", "resumed by eve (3333 3333 3333 3333)")


async def test_so_many_jobs_wait_and_no_more(store, preparing):
    manager = make(store, preparing, most=3, most_each=2)
    await manager.submit(spec(1), ADA)
    await manager.submit(spec(2), ADA)
    with pytest.raises(QueueFull, match="no more jobs of this device: 2 wait") as raised:
        await manager.submit(spec(3), ADA)
    assert "cancel" in raised.value.hint_text
    again = await manager.submit(spec(2), ADA)  # the same one is not another one
    assert again.state == "queued"
    await manager.submit(spec(4), BOB)
    with pytest.raises(QueueFull, match="no more jobs: 3 wait"):
        await manager.submit(spec(5), BOB)
    assert [job.id for job in manager.list(limit=9, device=ADA.device)] == [
        spec(number).id for number in (4, 2, 1)
    ]
    await manager.command(spec(1).id, "c1", "cancel", ADA)
    await manager.submit(spec(5), BOB)


async def test_bounds_hold_for_jobs_that_come_at_once(store, preparing):
    manager = make(store, preparing, most_each=2)
    results = await asyncio.gather(
        *(manager.submit(spec(number), ADA) for number in range(1, 6)), return_exceptions=True
    )
    assert sum(isinstance(result, QueueFull) for result in results) == 3
    assert manager.active == 2


async def test_a_job_for_which_there_is_no_room_is_refused_and_leaves_nothing(manager, preparing):
    preparing.full = OutOfSpace(path="Worker gpu-1", free="1 MB", need="2 GB")
    with pytest.raises(OutOfSpace, match="Worker gpu-1 has 1 MB free"):
        await manager.submit(spec(1), ADA)
    assert manager.list(limit=9, device=ADA.device) == []


async def test_a_long_log_is_read_once_and_not_on_the_loop(manager, monkeypatch):
    readers = []

    def decode(line, *, n):
        readers.append(threading.current_thread())
        return decode_line(line, n=n)

    job = spec(1)
    await manager.submit(job, ADA)
    directory = manager.get(job.id)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for number in range(300):
            log.append(Logged(line=str(number)))
    monkeypatch.setattr(logfile, "decode_line", decode)
    await manager.submit(job, ADA)
    await manager.command(job.id, "c1", "pause", ADA)
    await manager.submit(job, ADA)
    listed = await asyncio.to_thread(manager.list, limit=9, device=ADA.device)
    assert listed[0].last_event == 303
    assert len(readers) == 303  # the first one again, to know when the job was taken
    assert threading.main_thread() not in readers


REMOVED = "by owners, who let ada (1111 1111 1111 1111) run no more jobs"


async def test_what_waits_of_a_removed_device_is_cancelled_and_what_is_prepared(store, preparing):
    removed = []
    manager = make(store, preparing, removed=removed)
    mine, held, others, prepared = spec(1), spec(2), spec(3, name="others"), spec(4)
    async with at_work(manager):
        await manager.submit(prepared, ADA)
        await preparing.begun.wait()
        await manager.submit(mine, ADA)
        await manager.submit(held, ADA)
        await manager.command(held.id, "c1", "pause", ADA)
        await manager.submit(others, BOB)
        removed.append(ADA.device)
        manager.dismiss()
        manager.dismiss()
        await until(manager, others.id, "preparing")
        for job in (mine, held):
            assert states_of(manager, job) == ("cancelled", REMOVED)
        assert states_of(manager, prepared)[0] == "cancelled"
        assert manager.active == 1


async def test_who_was_removed_while_the_worker_was_off_has_no_turn(store, preparing):
    longest = msgspec.structs.replace(ADA, name="a" * 64)
    await make(store, preparing).submit(spec(1), longest)
    again = make(store, preparing, removed=[ADA.device])
    async with at_work(again):
        await until(again, spec(1).id, "cancelled")
    reason = REMOVED.replace("ada", "a" * 64)
    assert states_of(again, spec(1)) == ("cancelled", reason)
    assert preparing.jobs == []


async def test_a_job_whose_end_is_told_is_not_counted_while_its_runner_goes(
    store, preparing, monkeypatch
):
    job = spec(1)
    directory = store.create(job, clock=now)
    with directory.claim(), LogWriter(directory.log, clock=now) as log:
        for state in ("assigned", "preparing", "running"):
            log.append(StateChanged(state=state))
        ending, gone = asyncio.Event(), asyncio.Event()

        class Runner:
            async def events(self, since):
                await ending.wait()
                yield log.append(StateChanged(state="finishing"))
                yield log.append(StateChanged(state="completed"))
                await gone.wait()  # the process needs a moment more

        monkeypatch.setattr("sleap_rtc.worker.manager.attach", lambda _: Runner())
        changed = asyncio.Event()
        manager = make(store, preparing, on_change=changed.set)
        async with at_work(manager):
            await manager.submit(spec(2), ADA)
            assert manager.active == 2
            changed.clear()
            ending.set()
            await asyncio.wait_for(changed.wait(), 60)  # the server is told at once
            assert manager.active == 1
            assert preparing.jobs == []
            gone.set()
            await preparing.begun.wait()
    assert preparing.jobs == ["flies.slp"]
