"""Programs that engines start: their own process group, a scrubbed environment, their output.

A program is started in a session of its own, so that signals reach it and its
children and nobody else. On Linux it is told to end when the process that started
it dies, so that a killed runner leaves no trainer behind that holds a GPU.

A process is known by its number, its start time and the machine's boot
(:class:`ProcessIdentity`), since numbers are used again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Protocol

import msgspec

from sleap_rtc.engines.base import EngineEvent, Outcome, Said, Stepped
from sleap_rtc.engines.output import Lines

TAIL_LINES: Final = 60
MAX_LOG: Final = 256 * 1024 * 1024
"""Bytes of a program's log file; what comes after is not written."""
_QUEUE: Final = 10_000
"""Events that wait for a reader before steps and lines are dropped."""
_LINGER_S: Final = 3.0
"""Seconds that output may stay open after the program's end before its children are ended too."""

_PASSED: Final = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
    }
)
_PASSED_BEGINNINGS: Final = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "ROCR_", "HIP_")

# PR_SET_PDEATHSIG, then the program in the same process; a parent that is gone already is noticed.
_GUARD: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(143)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class ProcessIdentity(msgspec.Struct, frozen=True):
    """Which process is meant, even after its number was given to another.

    Attributes:
        pid: Its number.
        start: When it started, as the system counts.
        boot: Which start of the machine that was.
    """

    pid: int
    start: str
    boot: str


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this number now, None if there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _identify_by_ps(pid)
    except ProcessLookupError:
        return None
    # The name in parentheses may hold anything, so fields are counted from its end.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessIdentity(pid=pid, start=fields[19], boot=boot)


def _identify_by_ps(pid: int) -> ProcessIdentity | None:
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, start = found.stdout.strip().partition(" ")
    if not start or state.startswith("Z"):
        return None
    # The start time is a date here, which tells boots apart as well.
    return ProcessIdentity(pid=pid, start=start.strip(), boot="")


def end_group(identity: ProcessIdentity, *, kill: bool = False) -> bool:
    """Signal the group led by a process, if it is still that one: SIGTERM, or SIGKILL.

    Returns:
        Whether it was there.
    """
    if identify(identity.pid) != identity:
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(identity.pid, signal.SIGKILL if kill else signal.SIGTERM)
        return True
    return False


def scrubbed(
    environment: Mapping[str, str], *, home: Path, threads: int, extra: Mapping[str, str]
) -> dict[str, str]:
    """The environment for an engine: what it needs to run, and nothing that it could give away.

    Args:
        environment: The present one.
        home: A folder for what libraries like to keep in a home; not the user's.
        threads: Processor threads for numeric libraries.
        extra: What the engine adds.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in _PASSED or name.startswith(_PASSED_BEGINNINGS)
    }
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **kept,
        **dict.fromkeys(names, str(max(1, threads))),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **extra,
    }


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended.

    Attributes:
        returncode: Its exit code, negative for a signal.
        cancelled: Whether it was told to end.
        stop_asked: Whether an early end was asked for.
        log_tail: Its last lines.
    """

    returncode: int
    cancelled: bool
    stop_asked: bool
    log_tail: tuple[str, ...]


class Watcher(Protocol):
    """What an engine knows of its program: what its lines mean and how it ended."""

    def on_line(self, line: str, *, error: bool) -> Iterable[EngineEvent]:
        """The events that a line stands for; ``error``: it came by standard error."""
        ...

    async def started(self, run: ProcessRun) -> None:
        """The program runs; other sources of events may be opened."""
        ...

    async def request_stop(self) -> None:
        """Ask for an early end."""
        ...

    async def drain(self) -> None:
        """The program has ended: hand in what is left and close other sources of events."""
        ...

    def conclude(self, ending: Ending) -> Outcome:
        """Look at what is there and say how it ended."""
        ...


class _Streams(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells the program's end at once; asyncio waits for its output, which children keep open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=1 << 16, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


def guarded(command: Sequence[str]) -> list[str]:
    """A command that is told to end, by SIGTERM, when this process is gone; on Linux.

    Args:
        command: An absolute path and arguments. It is to be started by the main thread.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-c", _GUARD, str(os.getpid()), *command]


class ProcessRun:
    """A program of an engine; see :class:`sleap_rtc.engines.base.Run`."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        streams: _Streams,
        watcher: Watcher,
        log: Path,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._transport = transport
        self._exited = streams.exited
        self._process = asyncio.subprocess.Process(transport, streams, loop)
        self._watcher = watcher
        self._log_path = log
        self._events: collections.deque[EngineEvent] = collections.deque()
        self._news = asyncio.Event()
        self._over = False
        self._cancelled = False
        self._stop_asked = False
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._end = asyncio.create_task(self._follow())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        log: Path,
        watcher: Watcher,
    ) -> ProcessRun:
        """Start a program.

        Args:
            command: An absolute path and arguments.
            directory: Its working directory.
            environment: Its whole environment.
            log: File to append its output to.
            watcher: What its output means.

        Raises:
            OSError: It can't be started.
        """
        loop = asyncio.get_running_loop()
        transport, streams = await loop.subprocess_exec(
            lambda: _Streams(loop),
            *guarded(command),
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        run = cls(transport, streams, watcher, log)
        await watcher.started(run)
        return run

    @property
    def pid(self) -> int:
        """The process; it leads a group of its own."""
        return self._process.pid

    def emit(self, event: EngineEvent) -> None:
        """Hand an event to the reader; steps and lines are dropped when it is far behind."""
        if len(self._events) >= _QUEUE and isinstance(event, Said | Stepped):
            return
        self._events.append(event)
        self._news.set()

    async def events(self) -> AsyncIterator[EngineEvent]:
        """What happens, until the process has ended. To be iterated once."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._over:
                return
            self._news.clear()
            await self._news.wait()

    async def outcome(self) -> Outcome:
        """How it ended. Waits for the end of the process."""
        return await asyncio.shield(self._end)

    async def tell(self, line: str) -> None:
        """Write a line to the program's standard input; one that has ended hears nothing."""
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            return
        with contextlib.suppress(ConnectionError):
            stdin.write(line.encode() + b"\n")
            await stdin.drain()

    async def stop(self) -> None:
        """Ask for an early end that keeps the best checkpoint."""
        if self._process.returncode is None:
            self._stop_asked = True
            await self._watcher.request_stop()

    async def cancel(self, *, grace_s: float = 20.0) -> None:
        """End the process group: SIGTERM, and SIGKILL after ``grace_s`` seconds."""
        if self._process.returncode is not None:
            return
        self._cancelled = True
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(asyncio.shield(self._end), grace_s)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._end)

    def pause(self) -> None:
        """Freeze the process group; it keeps its memory."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def _follow(self) -> Outcome:
        try:
            with contextlib.ExitStack() as stack:
                log: IO[bytes] | None = None
                with contextlib.suppress(OSError):
                    log = stack.enter_context(self._log_path.open("ab", buffering=0))
                written = _Log(log)
                pumps = asyncio.gather(
                    self._pump(self._process.stdout, written, error=False),
                    self._pump(self._process.stderr, written, error=True),
                )
                await self._exited.wait()
                await self._close(pumps)
            await self._watcher.drain()
            return self._watcher.conclude(
                Ending(
                    returncode=self._transport.get_returncode() or 0,
                    cancelled=self._cancelled,
                    stop_asked=self._stop_asked,
                    log_tail=tuple(self._tail),
                )
            )
        finally:
            self._transport.close()
            self._over = True
            self._news.set()

    async def _close(self, pumps: asyncio.Future[tuple[None, None]]) -> None:
        """Wait for the last output. A child that keeps it open is ended: its group is alive."""
        try:
            await asyncio.wait_for(asyncio.shield(pumps), _LINGER_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            # What still holds it open after that has left the group, and is not ours to end.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pumps, _LINGER_S)

    async def _pump(self, stream: asyncio.StreamReader | None, log: _Log, *, error: bool) -> None:
        if stream is None:
            return
        lines = Lines()
        while data := await stream.read(64 * 1024):
            for line in lines.feed(data):
                self._said(line, log, error=error)
        for line in lines.end():
            self._said(line, log, error=error)

    def _said(self, line: str, log: _Log, *, error: bool) -> None:
        for event in self._watcher.on_line(line, error=error):
            if isinstance(event, Said):
                self._tail.append(event.line)
                log.write(event.line)
            self.emit(event)


class _Log:
    """The log file: bounded, and a full disk doesn't end the training."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file
        self._written = 0

    def write(self, line: str) -> None:
        data = line.encode("utf-8", errors="replace") + b"\n"
        self._written += len(data)
        if self._file is None or self._written > MAX_LOG:
            return
        with contextlib.suppress(OSError):
            self._file.write(data)


def disk_was_full(lines: Sequence[str]) -> bool:
    """Whether a program ended for want of disk space, by its last lines: nobody's fault."""
    return any(os.strerror(errno.ENOSPC) in line for line in lines)


def last_error(lines: Sequence[str]) -> str:
    """The line of a log that says best why a program failed: the last that names an error."""
    for line in reversed(lines):
        head = line.split(":", 1)[0].strip().rpartition(".")[2]
        if head.endswith(("Error", "Exception", "Interrupt")) and " " not in head:
            return line.strip()
    for line in reversed(lines):
        if "error" in line.lower():
            return line.strip()
    return lines[-1].strip() if lines else ""
