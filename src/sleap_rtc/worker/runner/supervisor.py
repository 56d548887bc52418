"""The job, from its first stage to its end, as the runner sees it.

Three sources speak to it: the engine (through :class:`Conductor`), whoever
commands the job (:meth:`Supervisor.take`), and the system, which may tell the
runner to end (:meth:`Supervisor.leave`). All of them end up as events in the log,
and what to do next is read from the log's view, so a runner that is started
again on the same directory goes on where the log ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from loguru import logger

from sleap_rtc.domain.places import Load
from sleap_rtc.engines.base import Engine
from sleap_rtc.errors import IllegalTransition, OutOfSpace, SleapRtcError
from sleap_rtc.jobs.events import Body, CommandReceived, ErrorTold, JobState, StateChanged
from sleap_rtc.jobs.lifecycle import decide
from sleap_rtc.jobs.spec import JobSpec, TrackSpec, TrainSpec
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.conductor import Conductor
from sleap_rtc.worker.runner.ending import Ending, told
from sleap_rtc.worker.runner.logfile import COUNTS, LogWriter
from sleap_rtc.worker.runner.messages import Order
from sleap_rtc.worker.runner.plan import RunnerPlan
from sleap_rtc.worker.runner.tracking import Tracking
from sleap_rtc.worker.runner.training import Training

_TO_PREPARING: Final[Mapping[JobState | None, tuple[JobState, ...]]] = {
    "queued": ("assigned", "preparing"),
    "assigned": ("preparing",),
}
"""The states that lie before ``preparing``, for a job that comes straight to its runner."""


class Work(Protocol):
    """What a job does, in stages."""

    @property
    def count(self) -> int:
        """Number of stages."""
        ...

    def prepare(self) -> None:
        """Check everything that can be checked before the first stage."""
        ...

    async def stage(self, number: int) -> Ending | None:
        """Do a stage that isn't done yet; None when it ended well."""
        ...

    async def finish(self) -> None:
        """After the last stage."""
        ...

    def discard(self) -> None:
        """The job was cancelled: remove what nobody wants."""
        ...


class Supervisor:
    """One job.

    Args:
        job: Its directory, claimed by this process.
        spec: What is asked.
        plan: What the daemon decided.
        engine: The engine.
        library: The worker's library.
        log: Its log; the job is queued, assigned or preparing.
        grown: Called after each new event.
        clock: The time now, UTC.
        seconds: A clock that doesn't jump.
        load: Measures how busy the machine is.

    Raises:
        IllegalTransition: The job is in a state from which no runner can start.
    """

    def __init__(
        self,
        *,
        job: JobDirectory,
        spec: JobSpec,
        plan: RunnerPlan,
        engine: Engine,
        library: Registry,
        log: LogWriter,
        grown: Callable[[], None],
        clock: Callable[[], datetime],
        seconds: Callable[[], float],
        load: Callable[[], Load | None],
    ) -> None:
        state = log.view.state
        if state not in ("queued", "assigned", "preparing"):
            raise IllegalTransition(
                what=f"Job {spec.id}", state=state or "not submitted yet", event="starting it"
            )
        self._spec = spec
        self._log = log
        self._grown = grown
        self._full = False
        self._conductor = Conductor(
            emit=self._emit,
            view=lambda: log.view,
            seconds=seconds,
            trainer=job.trainer,
            grace_s=plan.grace_s,
            load=load,
        )
        self._work: Work
        match spec.work:
            case TrainSpec() as work:
                self._work = Training(
                    job=job,
                    spec=spec,
                    work=work,
                    plan=plan,
                    engine=engine,
                    library=library,
                    conductor=self._conductor,
                    emit=self._emit,
                    view=lambda: log.view,
                    clock=clock,
                )
            case TrackSpec() as work:
                self._work = Tracking(
                    job=job,
                    spec=spec,
                    work=work,
                    plan=plan,
                    engine=engine,
                    conductor=self._conductor,
                    emit=self._emit,
                )

    @property
    def last(self) -> int:
        """Number of the last event."""
        return self._log.view.number

    async def run(self) -> None:
        """Do the job. Whatever happens, its log says how it ended, if the disk takes it."""
        try:
            ending = await self._do()
        except OutOfSpace as error:  # nobody's fault, and it can go on when there is room
            ending = Ending("interrupted", error.message, told(error))
        except SleapRtcError as error:
            ending = Ending("failed", error.message, told(error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave the job running
            logger.exception("the runner failed")
            why = f"The runner failed: {type(error).__name__}: {error}"[:2_000]
            ending = Ending("failed", why, ErrorTold(code="error", message=why))
        try:
            self._settle(ending)
        except OutOfSpace as error:
            # The daemon will find a dead runner and say "interrupted" when there is room again.
            logger.bind(error=error.message).error("the job's end can't be logged")

    def take(self, order: Order) -> None:
        """Take a command: it is in the log when this returns, and is done or will be.

        Raises:
            IllegalTransition: It makes no sense now.
            OutOfSpace: It can't be logged.
        """
        command = CommandReceived(id=order.id, command=order.command, by=order.by)
        tracks = isinstance(self._spec.work, TrackSpec)
        verdict = decide(self._log.view, command, tracks=tracks)
        if verdict == "repeat":
            return
        self._emit(command)
        if verdict == "nothing":
            return
        logger.bind(command=order.command, by=order.by).info("the job is commanded")
        self._conductor.obey(order.command)
        if order.command == "pause":
            # It has its runner already, so it isn't held: its first stage begins, and stands still.
            self._to_preparing()
            if self._log.view.state == "preparing":
                self._to("running")
            self._to("paused")
        elif self._log.view.state == "paused" and order.command in ("resume", "stop"):
            self._to("running")

    def leave(self, reason: str) -> None:
        """End the engine's process gently; the job is interrupted and its checkpoint kept."""
        self._conductor.leave(reason)

    async def _do(self) -> Ending | None:
        """All stages; None when they ended well."""
        self._to_preparing()
        self._work.prepare()
        for number in range(self._work.count):
            ending = self._asked_to_end()
            if ending is None:
                if self._log.view.state == "preparing":
                    self._to("running")
                ending = await self._work.stage(number)
            if ending is not None:
                return ending
        ending = self._asked_to_end()
        if ending is not None:
            return ending
        if self._log.view.state == "paused":
            self._to("running")  # it was paused when there was nothing left to pause
        self._to("finishing")
        await self._work.finish()
        return None

    def _to_preparing(self) -> None:
        for state in _TO_PREPARING.get(self._log.view.state, ()):
            self._to(state)

    def _asked_to_end(self) -> Ending | None:
        if self._log.view.pending == "cancel":
            return Ending("cancelled", "The job was cancelled.")
        if self._conductor.leaving:
            return Ending("interrupted", self._conductor.leaving)
        return None

    def _settle(self, ending: Ending | None) -> None:
        if ending is None:
            self._to("completed")
            return
        if self._log.view.pending == "cancel" and ending.state == "interrupted":
            ending = Ending("cancelled", "The job was cancelled.")
        if ending.error is not None:
            self._emit(ending.error)
        self._to(ending.state, ending.reason)
        if ending.state == "cancelled":
            self._work.discard()

    def _to(self, state: JobState, reason: str = "") -> None:
        self._emit(StateChanged(state=state, reason=reason))
        logger.bind(state=state).info("the job's state")

    def _emit(self, body: Body) -> None:
        """Save, then tell. On a full disk, what doesn't count is left out."""
        try:
            self._log.append(body)
        except OutOfSpace as error:
            if isinstance(body, COUNTS):
                raise
            if not self._full:
                logger.bind(error=error.message).warning("the disk is full; progress is not logged")
            self._full = True
            return
        self._full = False
        self._grown()
