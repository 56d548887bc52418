"""The runner as a process: its arguments, its claim, its socket, its signals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger

from sleap_rtc.domain.values import decode, encode, encode_pretty
from sleap_rtc.engines import registry as engines
from sleap_rtc.engines.base import Engine
from sleap_rtc.engines.process import identify
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.durable import write_replacing
from sleap_rtc.library.registry import Registry
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.load import LoadMeter
from sleap_rtc.worker.runner.link import RunnerSocket
from sleap_rtc.worker.runner.logfile import LogWriter
from sleap_rtc.worker.runner.messages import refusal
from sleap_rtc.worker.runner.plan import Ready, RunnerFile, RunnerPlan
from sleap_rtc.worker.runner.supervisor import Supervisor

Engines = Callable[[str], Engine]
"""Gives the engine with a name, raising EngineMissing."""


def main(arguments: Sequence[str], *, engine: Engines = engines.engine) -> int:
    """Run one job.

    Args:
        arguments: As on the command line.
        engine: Gives the engine that the plan names.

    Returns:
        The exit code: 0 when the job ended in whatever way and its log says how.
    """
    parser = argparse.ArgumentParser(prog="python -m sleap_rtc.worker.runner")
    parser.add_argument("job", type=Path, help="the job's directory")
    parser.add_argument("--detach", action="store_true", help="go to the background")
    parser.add_argument("--ready-fd", type=int, default=None, help="where to say that it listens")
    options = parser.parse_args(arguments)
    if options.detach and os.fork():
        return 0
    ready = _Ready(options.ready_fd)
    try:
        asyncio.run(run(JobDirectory(root=options.job.absolute()), ready=ready, engine=engine))
    except SleapRtcError as error:
        logger.bind(code=error.code).error(error.message)
        ready.refused(error)
        return error.exit_code
    finally:
        ready.close()
    return 0


class _Ready:
    """The first words to whoever started the runner."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def listening(self, runner: RunnerFile) -> None:
        self._say(Ready(runner=runner))

    def refused(self, error: SleapRtcError) -> None:
        self._say(Ready(refused=refusal(error)))

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _say(self, words: Ready) -> None:
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):  # who started it is gone, which is no matter
                os.write(self._fd, encode(words) + b"\n")
            self.close()


async def run(job: JobDirectory, *, ready: _Ready, engine: Engines) -> None:
    """Claim a job, listen, do it, and let go of it.

    Raises:
        Busy: Another process has the job.
        DataError: Its files are not readable.
        SleapRtcError: It can't be started; how a started job ends is in its log.
    """
    with contextlib.ExitStack() as held:
        spec = job.read_spec()
        held.enter_context(job.claim())
        plan = decode(RunnerPlan, job.plan.read_bytes(), what=str(job.plan))
        log = held.enter_context(LogWriter(job.log, clock=_now))
        library = held.enter_context(Registry(Path(plan.library)))
        socket = RunnerSocket()
        supervisor = Supervisor(
            job=job,
            spec=spec,
            plan=plan,
            engine=engine(plan.engine),
            library=library,
            log=log,
            grown=socket.grown,
            clock=_now,
            seconds=time.monotonic,
            load=LoadMeter(),
        )
        try:
            runner = await _listen(job, socket, supervisor)
            held.callback(job.runner.unlink, missing_ok=True)
            _leave_on_signals(supervisor)
            ready.listening(runner)
            with logger.contextualize(job=spec.id):
                await supervisor.run()
        except BaseException:
            await socket.close()
            raise
    # The claim is free before the socket closes: who hears the end may start the job again.
    await socket.close()


async def _listen(job: JobDirectory, socket: RunnerSocket, supervisor: Supervisor) -> RunnerFile:
    path = await socket.open(supervisor.take, lambda: supervisor.last)
    process = identify(os.getpid())
    if process is None:
        raise SleapRtcError(message="This system doesn't say when a process started.")
    runner = RunnerFile(process=process, socket=str(path))
    write_replacing(job.runner, encode_pretty(runner))
    return runner


def _leave_on_signals(supervisor: Supervisor) -> None:
    """A machine that shuts down ends every process gently first: checkpoints are kept."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.leave, "The worker was shut down.")


def _now() -> datetime:
    return datetime.now(UTC)
