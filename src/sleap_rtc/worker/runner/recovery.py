"""What the daemon does about a job whose runner is gone.

A runner that ends by itself leaves a settled log. One that was killed, or whose
machine was, leaves a job that looks as if it ran. Recovery ends a trainer that
outlived it, keeps what was trained, and says in the log how it stands: the same
that the runner would have said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.values import decode
from sleap_rtc.engines import registry as engines
from sleap_rtc.engines.base import Engine
from sleap_rtc.engines.process import ProcessIdentity, end_group, identify
from sleap_rtc.errors import Busy, DataError, SleapRtcError
from sleap_rtc.files.claim import Claim
from sleap_rtc.jobs.events import ModelChanged, OutputReady, StateChanged
from sleap_rtc.jobs.lifecycle import JobView, StageView
from sleap_rtc.jobs.spec import TrainSpec
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner import keeping
from sleap_rtc.worker.runner.attempts import Attempt, Ended, StageFolder
from sleap_rtc.worker.runner.client import attach
from sleap_rtc.worker.runner.conductor import usable
from sleap_rtc.worker.runner.link import remove_socket
from sleap_rtc.worker.runner.logfile import LogWriter
from sleap_rtc.worker.runner.plan import RunnerFile, RunnerPlan, TrainerFile

REASON: Final = "The job's runner was killed, or its machine restarted."
_LOOK_S: Final = 0.05
_EXIT_S: Final = 10.0


async def recover(
    job: JobDirectory,
    *,
    clock: Callable[[], datetime],
    engine: Callable[[str], Engine] = engines.engine,
    reason: str = REASON,
) -> JobView:
    """Bring a job whose runner is gone to a state that is true. Doing it again is safe.

    A job that was running is *interrupted* afterwards, with epoch and checkpoint in its model's
    record; *cancelled*, if that had been asked for; or *completed*, if only the last words were
    missing. One that no runner had begun with stays as it is.

    Args:
        job: The job's directory.
        clock: The time now, UTC.
        engine: Gives the engine that the plan names.
        reason: One sentence for the log.

    Returns:
        The job as it stands.

    Raises:
        Busy: Its runner lives, or another process recovers it.
        OutOfSpace: The disk is full; do it again later.
        SleapRtcError: The job's files are not readable.
    """
    with await _claim(job):
        await _end_trainer(job)
        with LogWriter(job.log, clock=clock) as log:
            if log.view.state in ("running", "paused", "finishing") and not log.view.held:
                await asyncio.to_thread(_Recovery(job, log, clock).run, engine, reason)
            view = log.view
        _tidy(job)
    return view


class _Recovery:
    def __init__(self, job: JobDirectory, log: LogWriter, clock: Callable[[], datetime]) -> None:
        self._job = job
        self._log = log
        self._clock = clock

    def run(self, engine: Callable[[str], Engine], reason: str) -> None:
        spec = self._job.read_spec()
        cancelled = self._log.view.pending == "cancel"
        if isinstance(spec.work, TrainSpec):
            why = "The job was cancelled." if cancelled else reason
            plan = decode(RunnerPlan, self._job.plan.read_bytes(), what=str(self._job.plan))
            with Registry(Path(plan.library)) as library:
                for seen in self._log.view.seen:
                    if seen.record is not None and not self._log.view.is_trained(seen.stage):
                        self._stage(library, seen, seen.record, engine(plan.engine), why)
            if all(self._log.view.is_trained(n) for n in range(len(spec.work.stages))):
                if self._log.view.state == "paused":
                    self._log.append(StateChanged(state="running"))
                if self._log.view.state == "running":
                    self._log.append(StateChanged(state="finishing"))
                self._log.append(StateChanged(state="completed"))
                return
        if cancelled:
            self._log.append(StateChanged(state="cancelled", reason="The job was cancelled."))
        else:
            self._log.append(StateChanged(state="interrupted", reason=reason))
        logger.bind(job=spec.id, state=self._log.view.state).info("a job was recovered")

    def _stage(
        self,
        library: Registry,
        seen: StageView,
        told: ModelRecord,
        engine: Engine,
        reason: str,
    ) -> None:
        """Keep what a stage left."""
        folder = StageFolder(self._job.stage(seen.stage))
        attempt = folder.attempt()
        record = library.get(told.id).record
        if attempt is None or attempt.model != record.id:
            return
        ended = folder.ended() or self._look(engine, attempt, seen)
        if usable(ended.outcome):
            record, package = keeping.keep_result(library, record, attempt, ended, at=self._clock())
            self._log.append(ModelChanged(stage=seen.stage, record=record))
            self._log.append(
                OutputReady(
                    what="model", package=package, stage=seen.stage, about={"model": record.id}
                )
            )
            folder.clear()
            return
        failed = ended.outcome.kind == "failed"
        record = keeping.keep_checkpoint(
            library,
            record,
            attempt,
            ended,
            reason=ended.outcome.reason if failed else reason,
            failed=failed,
        )
        self._log.append(ModelChanged(stage=seen.stage, record=record))

    def _look(self, engine: Engine, attempt: Attempt, seen: StageView) -> Ended:
        """What the engine finds in the folder of an attempt that nobody saw end."""
        first = attempt.point.epoch if attempt.point is not None else 0
        spent = sum(e.duration_s or 0.0 for e in seen.losses if e.epoch >= first)
        return Ended(outcome=engine.inspect(attempt.plan), duration_s=spent)


async def _end_trainer(job: JobDirectory) -> None:
    """End the engine's process if it outlived its runner, surely that one and no other."""
    try:
        trainer = decode(TrainerFile, job.trainer.read_bytes(), what=str(job.trainer)).process
    except (FileNotFoundError, DataError):
        return
    grace_s = 0.0
    with contextlib.suppress(OSError, SleapRtcError):
        grace_s = decode(RunnerPlan, job.plan.read_bytes(), what=str(job.plan)).grace_s
    for kill in (False, True):
        if end_group(trainer, kill=kill):
            logger.bind(job=job.root.name, pid=trainer.pid, kill=kill).warning(
                "a trainer outlived its runner and is ended"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if kill else grace_s):
                    await _gone(trainer)


async def _claim(job: JobDirectory) -> Claim:
    """Claim a job; a runner that was killed may take a moment to let go of it, thread by thread."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_EXIT_S):
            while True:
                try:
                    return job.claim()
                except Busy:
                    if attach(job) is not None or not job.runner.exists():
                        raise
                await asyncio.sleep(_LOOK_S)
    return job.claim()


async def _gone(process: ProcessIdentity) -> None:
    """Wait for the end of a process; one that isn't a child of this one can only be looked at."""
    while identify(process.pid) == process:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)


def _tidy(job: JobDirectory) -> None:
    with contextlib.suppress(FileNotFoundError, DataError):
        remove_socket(
            Path(decode(RunnerFile, job.runner.read_bytes(), what=str(job.runner)).socket)
        )
    job.runner.unlink(missing_ok=True)
    job.trainer.unlink(missing_ok=True)
