"""The jobs of one worker: taken, prepared, handed to runners, followed, taken up again.

One job works at a time; the others wait (``waiting.py``). What is true of a job
is in its log. Before a runner has the job this process writes
the log, and afterwards it reads it; a worker that is killed at any point finds
out from the log, when it starts again, what is to be done::

    in the log        runner alive      then
    queued            no                it waits again
    assigned          no                queued again
    preparing         no                interrupted, queued again: inputs are fetched on
    paused, held      no                it stays so until it is resumed
    running, …        yes               followed as if nothing had happened
    running, …        no                interrupted; it goes on when somebody asks
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from typing import Final, Literal, Protocol

from loguru import logger

from sleap_rtc.domain.ids import DeviceId, JobId, PackageId, unix_ms_of
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import (
    Busy,
    IllegalTransition,
    NotPermitted,
    OutOfSpace,
    SleapRtcError,
    UnknownJob,
    UsageError,
)
from sleap_rtc.jobs.events import Command, CommandReceived, JobEvent, StateChanged
from sleap_rtc.jobs.lifecycle import NOT_BEGUN, SETTLED, JobView, decide
from sleap_rtc.jobs.spec import JobSpec, TrackSpec
from sleap_rtc.protocol.link import JobSummary
from sleap_rtc.worker.job_directory import JobDirectory, JobStore, Submitter
from sleap_rtc.worker.peers import Asker
from sleap_rtc.worker.runner.client import RunnerHandle, attach, launch
from sleap_rtc.worker.runner.ending import told
from sleap_rtc.worker.runner.logfile import LogReader, LogWriter
from sleap_rtc.worker.views import Views
from sleap_rtc.worker.waiting import Waiting

Prepared = Literal["ready", "absent"]


class Prepare(Protocol):
    """Gets jobs ready for their runners."""

    async def __call__(
        self, job: JobDirectory, spec: JobSpec, log: LogWriter, tell: Callable[[], None]
    ) -> Prepared:
        """Fetch a job's inputs and write its plan; ``tell`` is called after each event.

        Returns:
            ``absent`` if nobody offers what it lacks; what has arrived is kept.
        """
        ...

    def at_hand(self, spec: JobSpec) -> bool:
        """Whether all that a job needs is here, or offered by somebody."""
        ...

    def check_room(self, spec: JobSpec) -> None:
        """See that there is room on the disk for what a job needs.

        Raises:
            OutOfSpace: There isn't.
        """
        ...

    def forget(self, packages: Iterable[PackageRef]) -> None:
        """Remove what has arrived of packages that nobody will ask for again."""
        ...


SETTLE_FIRST_S: Final = 0.1
SETTLE_MOST_S: Final = 10.0
"""Seconds between attempts to recover a job."""
AHEAD_S: Final = 86_400.0
"""Seconds that a job's id may be dated ahead of this machine's clock."""


class JobManager:
    """All jobs of this worker. For one event loop.

    Args:
        store: Their directories.
        prepare: Gets a job ready for its runner.
        recover: Brings a job whose runner is gone to a state that is true.
        clock: The present time, UTC.
        waiting: The jobs that wait, none yet, and how many may.
        is_member: Whether a device may still have jobs here.
        on_change: Called when the number of jobs at work or waiting may have changed.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        prepare: Prepare,
        recover: Callable[[JobDirectory], Awaitable[JobView]],
        clock: Callable[[], datetime],
        waiting: Waiting,
        is_member: Callable[[DeviceId], bool] = lambda _: True,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._recover = recover
        self._clock = clock
        self._is_member = is_member
        self._on_change = on_change
        self._waiting = waiting
        self._views = Views()
        self._submitting = asyncio.Lock()
        self._wake = asyncio.Event()
        self._grown: defaultdict[JobId, set[asyncio.Event]] = defaultdict(set)
        self._runner: RunnerHandle | None = None
        self._present: JobId | None = None
        self._settled = False
        self._let_go = asyncio.Event()
        self._writer: LogWriter | None = None
        self._preparing: asyncio.Task[Prepared] | None = None
        self._taken_up = asyncio.Event()
        self._taken_up.set()
        self._handed_over = asyncio.Event()
        self._handed_over.set()

    @property
    def active(self) -> int:
        """Jobs at work or waiting; one whose end is in its log is neither."""
        return len(self._waiting) + (self._present is not None and not self._settled)

    @property
    def idle(self) -> bool:
        """Whether nothing is at work."""
        return self._present is None and self._waiting.is_empty

    def needed(self) -> set[PackageId]:
        """The packages of all jobs at work or waiting."""
        found = {package for spec in self._waiting for package in spec.needed}
        if self._present is not None:
            with contextlib.suppress(SleapRtcError):
                found |= self._store.get(self._present).read_spec().needed
        return found

    # ── what peers ask ───────────────────────────────────────────────────────

    async def submit(self, spec: JobSpec, asker: Asker) -> JobSummary:
        """Take a job. The same one twice is one.

        Raises:
            Conflict: Another job has this id.
            UsageError: Its id is of the future.
            QueueFull: Too many wait already.
            OutOfSpace: There is no room for its data, or the disk is full.
        """
        submitter = Submitter(device=asker.device, name=asker.name)
        async with self._submitting:  # the bounds hold for several that come at once, too
            if not self._is_known(spec.id):
                self._check_date(spec.id)
                self._waiting.check_room(asker.device)
                await asyncio.to_thread(self._prepare.check_room, spec)
            job = await asyncio.to_thread(
                self._store.create, spec, clock=self._clock, submitter=submitter
            )
            found = job.read_submitter()
            if found is None or found.device != asker.device:
                raise NotPermitted(message="A job with this id was submitted by another device.")
            view = await asyncio.to_thread(self.view, job)
            if view.state == "queued" and spec.id != self._present and spec.id not in self._waiting:
                logger.info("job {} of {}: queued", spec.id, asker.called)
                self._enqueue(job)
        return await asyncio.to_thread(self.summary, job, asker.device)

    def list(self, *, limit: int, device: DeviceId) -> list[JobSummary]:
        """The newest jobs first. Reads logs: not for an event loop."""
        found = []
        for job_id in reversed(self._store.ids()[-limit:]):
            try:
                found.append(self.summary(self._store.get(job_id), device))
            except SleapRtcError as error:
                logger.warning("job {} can't be shown: {}", job_id, error)
        return found

    def get(self, job_id: str) -> JobDirectory:
        """A job's directory.

        Raises:
            UnknownJob: There is none.
        """
        return self._store.get(job_id)

    def view(self, job: JobDirectory) -> JobView:
        """A job as it stands. Reads its log: not for an event loop."""
        return self._views(job)

    def summary(self, job: JobDirectory, device: DeviceId) -> JobSummary:
        """One line about a job, for this device. Reads its log: not for an event loop."""
        spec, view, submitter = job.read_spec(), self.view(job), job.read_submitter()
        return JobSummary(
            id=spec.id,
            name=spec.name,
            kind="track" if isinstance(spec.work, TrackSpec) else "train",
            engine=spec.engine,
            state=view.state or "queued",
            submitted_at=view.created_at or self._clock(),
            last_event=view.number,
            mine=submitter is not None and submitter.device == device,
        )

    async def command(self, job_id: JobId, request: str, command: Command, asker: Asker) -> None:
        """Command a job; returns when the command is in its log.

        Raises:
            UnknownJob: There is no such job.
            NotPermitted: It is neither the asker's job nor is the asker an owner.
            IllegalTransition: It makes no sense in the job's state.
        """
        job = self._store.get(job_id)
        self._check_may_command(job, asker)
        await self._taken_up.wait()
        received = CommandReceived(id=request, command=command, by=asker.called)
        read = False
        while self._present == job_id or not read:
            if self._present != job_id:
                # What is known of the log isn't read again on the loop, where it is written.
                await asyncio.to_thread(self.view, job)
                read = True
                continue  # it may have its turn meanwhile
            await self._handed_over.wait()
            if self._runner is not None:
                await self._runner.command(request, command, by=asker.called)
                return
            if self._writer is not None and self._writer.view.state == "preparing":
                self._command_preparing(job, self._writer, received)
                return
            await self._let_go.wait()
        with job.claim(), self._open_log(job) as log:
            self._command_waiting(job, log, received)
        self._on_change()
        self._tell(job_id)

    def _command_preparing(
        self, job: JobDirectory, log: LogWriter, received: CommandReceived
    ) -> None:
        if not self._decided(log.view, received, job) or self._preparing is None:
            return
        log.append(received)
        if received.command == "pause":
            log.append(StateChanged(state="paused", reason=f"by {received.by}"))
        self._preparing.cancel()

    def _command_waiting(
        self, job: JobDirectory, log: LogWriter, received: CommandReceived
    ) -> None:
        if not self._decided(log.view, received, job):
            return
        log.append(received)
        reason = f"by {received.by}"
        match received.command:
            case "cancel":
                log.append(StateChanged(state="cancelled", reason=reason))
                self._waiting.remove(JobId(job.root.name))
                self._forget(job.read_spec())
            case "pause":
                log.append(StateChanged(state="paused", reason=reason))
                self._waiting.hold(job.read_spec(), _device(job))
            case "resume":
                log.append(StateChanged(state="queued", reason=f"resumed {reason}"))
                self._waiting.remove(JobId(job.root.name))
                self._enqueue(job)
            case "stop":
                raise AssertionError("what doesn't run isn't stopped: decide() says so")

    async def retry(self, job_id: JobId, asker: Asker) -> None:
        """Queue an interrupted job again; it goes on from its checkpoint.

        Raises:
            UnknownJob: There is no such job.
            NotPermitted: It is neither the asker's job nor is the asker an owner.
            IllegalTransition: It isn't interrupted.
        """
        job = self._store.get(job_id)
        self._check_may_command(job, asker)
        await self._taken_up.wait()
        if job_id in self._waiting:
            return
        state = (await asyncio.to_thread(self.view, job)).state
        if state != "interrupted":
            raise IllegalTransition(what="The job", state=state, event="retry")
        with job.claim(), self._open_log(job) as log:
            log.append(StateChanged(state="queued", reason=f"{asker.called} asked to go on"))
        self._enqueue(job)

    def look_again(self) -> None:
        """Somebody offers something: jobs that lack it may have their turn."""
        if self._waiting.look_again(self._prepare.at_hand):
            self._wake.set()

    def dismiss(self) -> None:
        """Cancel the jobs that haven't begun of devices that may have none here any more."""
        for job_id in [self._present, *(spec.id for spec in self._waiting)]:
            if job_id is None:
                continue
            try:
                self._dismiss(self._store.get(job_id))
            except SleapRtcError as error:
                logger.bind(code=error.code).warning("job {} isn't cancelled: {}", job_id, error)
        self._on_change()

    def _dismiss(self, job: JobDirectory) -> None:
        submitter = job.read_submitter()
        if submitter is None or self._is_member(submitter.device):
            return
        by = f"owners, who let {submitter.called} run no more jobs"
        cancel = CommandReceived(id="removed", command="cancel", by=by)
        if job.root.name != self._present:
            with job.claim(), self._open_log(job) as log:
                self._command_waiting(job, log, cancel)
        elif self._writer is not None and self._writer.view.state == "preparing":
            self._command_preparing(job, self._writer, cancel)
        else:
            return  # it runs: whoever removed its submitter can cancel it
        logger.info("job {}: cancelled by {}", job.root.name, by)
        self._tell(JobId(job.root.name))

    async def follow(self, job_id: JobId, since: int) -> AsyncIterator[JobEvent]:
        """Every event behind ``since``, and those to come, for as long as it is iterated."""
        log = LogReader(self._store.get(job_id).log, since=since)
        grown = asyncio.Event()
        self._grown[job_id].add(grown)
        try:
            while True:
                grown.clear()
                while events := await asyncio.to_thread(log.read):
                    for event in events:
                        yield event
                await grown.wait()
        finally:
            self._grown[job_id].discard(grown)

    # ── at work ──────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Work on the jobs, one after the other, until cancelled; runners go on then."""
        await self._take_up()
        while True:
            turn = self._waiting.next(self._prepare.at_hand)
            if turn is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._begin(turn)
            try:
                await self._work(self._store.get(turn))
            except SleapRtcError as error:
                logger.bind(code=error.code).error("job {}: {}", turn, error)
            except Exception:  # noqa: BLE001 - nor may it keep the others from their turn
                logger.exception("job {} failed", turn)
            finally:
                self._end()

    def _begin(self, job_id: JobId) -> None:
        self._present, self._settled = job_id, False
        self._let_go.clear()

    def _end(self) -> None:
        self._present = None
        self._let_go.set()
        self._on_change()

    async def _take_up(self) -> None:
        """Look at every job that isn't settled, as its log and its runner are now."""
        self._taken_up.clear()  # commands wait until it is known who has which job
        followed: list[tuple[JobDirectory, RunnerHandle]] = []
        for job_id in await asyncio.to_thread(self._store.ids):
            try:
                job = self._store.get(job_id)
                view = await asyncio.to_thread(self.view, job)
                if view.state in SETTLED:
                    continue
                handle = attach(job)
                if handle is not None:
                    followed.append((job, handle))
                elif view.held:
                    self._waiting.hold(job.read_spec(), _device(job))
                elif view.state in NOT_BEGUN:
                    self._requeue(job)
                else:
                    await self._settle(job)
                self._tell(job_id)  # whoever was quick to come back follows it already
            except SleapRtcError as error:
                logger.bind(code=error.code).error("job {} can't be taken up: {}", job_id, error)
        self.dismiss()
        self._taken_up.set()
        for job, handle in followed:
            logger.info("job {}: its runner is alive and is followed again", job.root.name)
            self._begin(JobId(job.root.name))
            try:
                await self._follow_runner(job, handle)
            except SleapRtcError as error:
                logger.bind(code=error.code).error("job {}: {}", job.root.name, error)
            finally:
                self._end()

    def _requeue(self, job: JobDirectory) -> None:
        with job.claim(), self._open_log(job) as log:
            if log.view.pending == "cancel":
                log.append(StateChanged(state="cancelled"))
                return
            if log.view.state == "preparing":
                log.append(StateChanged(state="interrupted", reason="the worker ended"))
            if log.view.state != "queued":
                log.append(StateChanged(state="queued", reason="the worker started again"))
        self._enqueue(job)

    async def _work(self, job: JobDirectory) -> None:
        job_id = JobId(job.root.name)
        if not await self._get_ready(job, job_id):
            return
        try:
            self._runner = handle = await launch(job)
        except SleapRtcError as error:
            with job.claim(), self._open_log(job) as log:
                self._fail(log, error)
            self._tell(job_id)
            return
        finally:
            self._handed_over.set()
        await self._follow_runner(job, handle)

    async def _get_ready(self, job: JobDirectory, job_id: JobId) -> bool:
        """Prepare a job; whether its runner can be launched."""
        await asyncio.to_thread(self.view, job)
        with job.claim(), self._open_log(job) as log:
            if log.view.state != "queued":
                return False
            self._writer = log
            log.append(StateChanged(state="assigned"))
            log.append(StateChanged(state="preparing"))
            self._tell(job_id)
            spec = job.read_spec()
            work = self._prepare(job, spec, log, lambda: self._tell(job_id))
            self._preparing = asyncio.ensure_future(work)
            try:
                prepared = await self._preparing
            except asyncio.CancelledError:
                if log.view.held:
                    self._waiting.hold(spec, _device(job))
                    return False
                if log.view.pending != "cancel":
                    raise  # this process ends; the log says how far it was
                log.append(StateChanged(state="cancelled"))
                self._forget(spec)
                return False
            except SleapRtcError as error:
                logger.bind(code=error.code).error("job {}: {}", job_id, error)
                self._fail(log, error)
                return False
            except Exception:  # noqa: BLE001 - what is wrong with one job must not end the worker
                logger.exception("job {} can't be prepared", job_id)
                why = "The worker failed while it prepared the job; its log says more."
                self._fail(log, SleapRtcError(message=why))
                return False
            else:
                if prepared == "absent":
                    self._put_back(job, log, spec)
                    return False
                self._handed_over.clear()  # commands wait until there is a runner to take them
                return True
            finally:
                self._writer = self._preparing = None
                self._tell(job_id)

    def _put_back(self, job: JobDirectory, log: LogWriter, spec: JobSpec) -> None:
        """Nobody offers a job's data: others have their turn, and it has one when somebody does."""
        submitter = job.read_submitter()
        who = submitter.called if submitter is not None else "its submitter"
        reason = f"Nobody offers its data; it goes on when {who} is back."
        log.append(StateChanged(state="queued", reason=reason))
        logger.info("job {}: put back, nobody offers its data", spec.id)
        self._waiting.put_back(spec, _device(job))
        self.look_again()  # it may have come in this very moment

    async def _follow_runner(self, job: JobDirectory, handle: RunnerHandle) -> None:
        job_id = JobId(job.root.name)
        self._runner = handle
        try:
            since = LogReader(job.log).number
            async for event in handle.events(since):
                self._tell(job_id)
                if isinstance(event.body, StateChanged) and event.body.state in SETTLED:
                    self._settled = True  # the runner itself needs a moment more
                    self._on_change()
        finally:
            self._runner = None
        if (await asyncio.to_thread(self.view, job)).state not in SETTLED:
            self._handed_over.clear()
            try:
                await self._settle(job)
            finally:
                self._handed_over.set()
        self._tell(job_id)
        logger.info("job {}: {}", job_id, (await asyncio.to_thread(self.view, job)).state)

    async def _settle(self, job: JobDirectory) -> None:
        """Bring a job whose runner is gone to a state that is true, however long that takes.

        A killed process lets go of its claim a moment after its socket; a full disk stays full
        until somebody makes room.
        """
        pause = SETTLE_FIRST_S
        while True:
            try:
                await self._recover(job)
            except (Busy, OutOfSpace) as error:
                logger.bind(code=error.code).warning("job {} later: {}", job.root.name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, SETTLE_MOST_S)
            else:
                return

    # ── small things ─────────────────────────────────────────────────────────

    def _open_log(self, job: JobDirectory) -> LogWriter:
        """A job's log, read from where this process knows it: quick if it was viewed before."""
        return LogWriter(job.log, clock=self._clock, known=self._views.known(job))

    def _fail(self, log: LogWriter, error: SleapRtcError) -> None:
        why = told(error)
        log.append(why)
        log.append(StateChanged(state="failed", reason=why.message))

    def _decided(self, view: JobView, received: CommandReceived, job: JobDirectory) -> bool:
        tracks = isinstance(job.read_spec().work, TrackSpec)
        return decide(view, received, tracks=tracks) == "do"

    def _check_may_command(self, job: JobDirectory, asker: Asker) -> None:
        submitter = job.read_submitter()
        mine = submitter is not None and submitter.device == asker.device
        if not mine and asker.role != "owner":
            who = submitter.called if submitter is not None else "another device"
            raise NotPermitted(
                message=f"The job is {who}'s; it is commanded by {who} and by owners of the room."
            )

    def _check_date(self, job_id: JobId) -> None:
        """See that an id isn't of the future. One of the past may have waited to be sent."""
        now = self._clock()
        made = unix_ms_of(job_id) / 1000
        if made > now.timestamp() + AHEAD_S:
            days = (made - now.timestamp()) / 86_400
            raise UsageError(
                message=f"The job's id is dated {days:,.0f} days ahead of this worker's clock, "
                f"which shows {now:%Y-%m-%d %H:%M} UTC.",
                hint="Set the clock that is wrong, and submit the job anew.",
            )

    def _is_known(self, job_id: JobId) -> bool:
        try:
            self._store.get(job_id)
        except UnknownJob:
            return False
        return True

    def _forget(self, spec: JobSpec) -> None:
        """What came for a job that was cancelled goes, unless it is for another one as well."""
        needed = {package.id for other in self._waiting for package in other.offered}
        self._prepare.forget(package for package in spec.offered if package.id not in needed)

    def _enqueue(self, job: JobDirectory) -> None:
        # A job may come while the worker still looks at those it had: it waits only once.
        job_id = JobId(job.root.name)
        if job_id != self._present:
            self._waiting.add(job.read_spec(), _device(job))
        self._wake.set()
        self._on_change()
        self._tell(job_id)

    def _tell(self, job_id: JobId) -> None:
        for grown in self._grown.get(job_id, ()):
            grown.set()


def _device(job: JobDirectory) -> DeviceId | None:
    submitter = job.read_submitter()
    return None if submitter is None else submitter.device
