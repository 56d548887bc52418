"""One process of an engine at a time, under the job's commands.

Commands may come when there is no process yet, or none any more; what they
asked for is in the job's view, and a process that starts then is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.domain.places import Load
from sleap_rtc.domain.values import encode_pretty
from sleap_rtc.engines.base import Outcome, Run
from sleap_rtc.engines.process import identify
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.jobs.events import Body, Command, StageStarted
from sleap_rtc.jobs.lifecycle import JobView
from sleap_rtc.worker.runner.attempts import Ended
from sleap_rtc.worker.runner.plan import TrainerFile
from sleap_rtc.worker.runner.relay import PROGRESS_S, ActiveClock, Relay

MEASURE_S: Final = 2.0
"""Seconds between looks at how busy the machine is."""


class Conductor:
    """Starts engine processes, tells what they say, passes commands on.

    Args:
        emit: Appends an event to the job's log.
        view: Gives the job's state.
        seconds: A clock that doesn't jump.
        trainer: ``trainer.json``.
        grace_s: Seconds between asking a process to end and ending it.
        load: Measures how busy the machine is; called in a thread.
    """

    def __init__(
        self,
        *,
        emit: Callable[[Body], None],
        view: Callable[[], JobView],
        seconds: Callable[[], float],
        trainer: Path,
        grace_s: float,
        load: Callable[[], Load | None],
    ) -> None:
        self._load = load
        self._emit = emit
        self._view = view
        self._seconds = seconds
        self._trainer = trainer
        self._grace_s = grace_s
        self._run: Run | None = None
        self._active: ActiveClock | None = None
        self._leaving = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def leaving(self) -> str:
        """Why the runner was told to end, empty when it wasn't."""
        return self._leaving

    async def conduct(self, started: StageStarted, start: Callable[[], Awaitable[Run]]) -> Ended:
        """Run one process from its start to its end.

        Args:
            started: The stage, announced before the process is there.
            start: Starts the process.

        Raises:
            SleapRtcError: It can't be started.
        """
        self._emit(started)
        active = self._active = ActiveClock(now=self._seconds())
        relay = Relay(started, now=0.0)
        run = await start()
        beside = (
            asyncio.create_task(self._tick(relay, active)),
            asyncio.create_task(self._measure(relay)),
        )
        try:
            self._note(run.pid, started.stage)
            self._run = run
            self._catch_up(run)
            async for event in run.events():
                for body in relay.take(event, now=active.read(now=self._seconds())):
                    self._emit(body)
            outcome = await run.outcome()
        except BaseException:
            await run.cancel(grace_s=self._grace_s)
            raise
        finally:
            self._run = None
            for task in beside:
                task.cancel()
        await self._settle_tasks()
        for body in relay.finish(now=active.read(now=self._seconds())):
            self._emit(body)
        return Ended(outcome=outcome, duration_s=active.read(now=self._seconds()))

    def forget(self) -> None:
        """The process is gone and what it did is written down."""
        with contextlib.suppress(FileNotFoundError):
            self._trainer.unlink()

    def obey(self, command: Command) -> None:
        """Pass a command on that is in the log; without a process it is kept for the next one."""
        run = self._run
        if run is None:
            return
        match command:
            case "pause":
                self._pause(run)
            case "resume":
                self._resume(run)
            case "stop":
                self._resume(run)  # a frozen process can't end its epoch
                self._begin(run.stop(), command)
            case "cancel":
                self._begin(run.cancel(grace_s=self._grace_s), command)

    def leave(self, reason: str) -> None:
        """The runner itself must end: the process is ended, its checkpoint stays."""
        self._leaving = self._leaving or reason
        if self._run is not None:
            self._begin(self._run.cancel(grace_s=self._grace_s), "cancel")

    async def _tick(self, relay: Relay, active: ActiveClock) -> None:
        """Tell a step that was held back although nothing follows it: the next may take long."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            for body in relay.tick(now=active.read(now=self._seconds())):
                self._emit(body)

    async def _measure(self, relay: Relay) -> None:
        """Look how busy the machine is while the process works."""
        while True:
            relay.load = await asyncio.to_thread(self._load)
            await asyncio.sleep(MEASURE_S)

    def _catch_up(self, run: Run) -> None:
        """Tell a new process what was commanded while there was none."""
        view = self._view()
        if self._leaving:
            self.leave(self._leaving)
        elif view.pending is not None:
            self.obey(view.pending)
        elif view.state == "paused":
            self._pause(run)

    def _pause(self, run: Run) -> None:
        run.pause()
        if self._active is not None:
            self._active.pause(now=self._seconds())

    def _resume(self, run: Run) -> None:
        run.resume()
        if self._active is not None:
            self._active.resume(now=self._seconds())

    def _begin(self, doing: Awaitable[None], what: str) -> None:
        """A command may take as long as the grace; it is acknowledged before."""

        async def do() -> None:
            try:
                await doing
            except OSError as error:
                logger.bind(command=what, error=str(error)).warning("a command had no effect")

        task = asyncio.create_task(do())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle_tasks(self) -> None:
        if self._tasks:
            await asyncio.gather(*self._tasks)

    def _note(self, pid: int, stage: int) -> None:
        """Write down which process it is, for whoever comes after a killed runner."""
        process = identify(pid)
        if process is not None:
            write_replacing(self._trainer, encode_pretty(TrainerFile(process=process, stage=stage)))


def usable(outcome: Outcome) -> bool:
    """Whether a run ended with something to keep as its result."""
    return outcome.kind in ("succeeded", "stopped")
