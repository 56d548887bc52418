"""The daemon's side of a runner: launch, attach, follow, command.

Nothing here is needed for the job to go on. A daemon that was killed attaches
again, reads the log from the last event that it knows, and misses none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sleap_rtc.domain.values import decode
from sleap_rtc.engines.process import ProcessIdentity, identify
from sleap_rtc.errors import DataError, DeadlineExceeded, LinkLost, SleapRtcError
from sleap_rtc.jobs.events import Command, JobEvent
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.logfile import LogReader
from sleap_rtc.worker.runner.messages import (
    ANSWERS,
    LIMIT,
    REQUESTS,
    Grown,
    Order,
    Refused,
    Taken,
    Watch,
    raised,
    receive,
)
from sleap_rtc.worker.runner.plan import Ready, RunnerFile

PROGRAM: Final = (sys.executable, "-m", "sleap_rtc.worker.runner")
START_S: Final = 60.0
"""Seconds that a runner may take to start: mostly imports, on a machine that may be loaded."""
COMMAND_S: Final = 10.0
"""Seconds until a command must be acknowledged."""
_MAX_REFUSAL: Final = 64 * 1024


class RunnerHandle(msgspec.Struct, frozen=True):
    """A runner that was alive a moment ago. Holds nothing open.

    Attributes:
        job: The job's directory.
        process: The runner.
        socket: Where it listens.
    """

    job: JobDirectory
    process: ProcessIdentity
    socket: Path

    @property
    def alive(self) -> bool:
        """Whether the runner still runs."""
        return identify(self.process.pid) == self.process

    async def events(self, since: int = 0) -> AsyncGenerator[JobEvent, None]:
        """The events behind ``since`` as they come, until the runner has ended or is gone.

        When they end, the log says whether the job is settled; if it isn't, the runner was killed
        and :func:`~sleap_rtc.worker.runner.recovery.recover` has work to do.

        Raises:
            DataError: The log has fewer events than ``since``: follow it from the start.
        """
        log = LogReader(self.job.log, since=since)
        async with contextlib.AsyncExitStack() as stack:
            reader = await self._watch(stack, since)
            while True:
                while events := await asyncio.to_thread(log.read):
                    for event in events:
                        yield event
                if reader is None:
                    return
                reader = await _until_grown(reader, log.number)

    async def command(self, request: str, command: Command, *, by: str = "") -> None:
        """Command the job. Returns when the command is in the log.

        Args:
            request: The request's id; asking twice with one id is asking once.
            command: What to do.
            by: Who asks.

        Raises:
            IllegalTransition: It makes no sense in the job's state.
            LinkLost: The runner has ended.
            DeadlineExceeded: It didn't answer within 10 s.
            OutOfSpace: The command can't be logged.
        """
        try:
            async with asyncio.timeout(COMMAND_S), contextlib.AsyncExitStack() as stack:
                reader, writer = await self._connect(stack)
                writer.write(REQUESTS.encode(Order(id=request, command=command, by=by)) + b"\n")
                await writer.drain()
                answer = await receive(reader, ANSWERS, peer=self._name)
        except TimeoutError:
            raise DeadlineExceeded(
                what=f"The {command} of {self._name}", seconds=COMMAND_S
            ) from None
        except OSError as error:
            raise LinkLost(peer=self._name, why=f"it has ended ({error})", hint="") from None
        match answer:
            case Taken():
                return
            case Refused(why=why):
                raise raised(why)
            case _:
                raise LinkLost(peer=self._name, why="it has ended", hint="")

    @property
    def _name(self) -> str:
        return f"the runner of job {self.job.root.name}"

    async def _connect(
        self, stack: contextlib.AsyncExitStack
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=LIMIT)
        stack.push_async_callback(_hang_up, writer)
        return reader, writer

    async def _watch(
        self, stack: contextlib.AsyncExitStack, since: int
    ) -> asyncio.StreamReader | None:
        """A connection on which new events are told, None when the runner is gone."""
        try:
            reader, writer = await self._connect(stack)
            writer.write(REQUESTS.encode(Watch(since=since)) + b"\n")
            await writer.drain()
        except OSError:
            return None
        return reader


async def launch(
    job: JobDirectory, *, program: Sequence[str] = PROGRAM, env: Mapping[str, str] | None = None
) -> RunnerHandle:
    """Start the runner of a job, in a session of its own, and wait until it listens.

    ``job.json`` and ``plan.json`` are in place, and nobody holds the job's claim.

    Args:
        job: The job's directory.
        program: What to start; it is given the job's directory and options.
        env: The runner's environment, this process's if None.

    Raises:
        Busy: Another runner has the job.
        DataError: The job's files are not readable.
        DeadlineExceeded: It took longer than a minute to start.
        SleapRtcError: It didn't start; the sentence has the end of its log.
    """
    ready, writing = os.pipe()
    try:
        # The runner forks once more and is adopted by init: so the daemon neither has it among
        # its children nor takes it along when its event loop closes.
        arguments = ["--detach", "--ready-fd", str(writing), str(job.root)]
        with job.runner_log.open("ab") as log:
            starter = await asyncio.create_subprocess_exec(
                *program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                env=env,
            )
        os.close(writing)
        writing = -1
        try:
            async with asyncio.timeout(START_S):
                await starter.wait()
                answer = await _first_line(ready)
        except TimeoutError:
            if starter.returncode is None:
                starter.kill()
                await starter.wait()
            raise DeadlineExceeded(
                what=f"Starting the runner of job {job.root.name}", seconds=START_S
            ) from None
    finally:
        os.close(ready)
        if writing >= 0:
            os.close(writing)
    words = decode(Ready, answer or b"{}", what="the runner's first words", limit=_MAX_REFUSAL)
    if words.refused is not None:
        raise raised(words.refused)
    if words.runner is None:
        raise _did_not_start(job)
    # The job may have ended already; following it gives its events all the same.
    return _handle(job, words.runner)


def attach(job: JobDirectory) -> RunnerHandle | None:
    """The runner of a job that was launched before, None when it has ended or was killed."""
    try:
        found = decode(RunnerFile, job.runner.read_bytes(), what=str(job.runner))
    except (FileNotFoundError, DataError):
        return None
    if identify(found.process.pid) != found.process:
        return None
    return _handle(job, found)


def _handle(job: JobDirectory, runner: RunnerFile) -> RunnerHandle:
    return RunnerHandle(job=job, process=runner.process, socket=Path(runner.socket))


async def _until_grown(reader: asyncio.StreamReader, known: int) -> asyncio.StreamReader | None:
    """Wait for events behind ``known``; None when the runner hung up."""
    try:
        while True:
            answer = await receive(reader, ANSWERS, peer="the runner")
            if answer is None:
                return None
            if isinstance(answer, Grown) and answer.last > known:
                return reader
    except OSError:
        return None


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _first_line(fd: int) -> bytes:
    """The first line written into a pipe; what there is when its other end closes without one."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_MAX_REFUSAL)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as pipe:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        try:
            return await reader.readline()
        finally:
            transport.close()


def _did_not_start(job: JobDirectory) -> SleapRtcError:
    lines = job.runner_log.read_text(encoding="utf-8", errors="replace").splitlines()
    last = lines[-1] if lines else "it wrote nothing"
    return SleapRtcError(
        message=f"The runner of job {job.root.name} didn't start: {last}",
        hint=f"{job.runner_log} has the rest.",
    )
