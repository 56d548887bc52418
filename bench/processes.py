"""Programs that are measured from outside: what they take, with all that they start."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from bench.wire import MB

WITHIN_S: Final = 900.0
"""Seconds after which a program counts as stuck."""
LOOKS_S: Final = 0.05
"""Seconds between two looks at a program's memory."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LAST_LINES: Final = 40
_WHY_LINES: Final = 3


class Missing(Exception):
    """What is to be measured isn't there; the message says what to install."""


class Used(msgspec.Struct, frozen=True):
    """What something took.

    Attributes:
        wall_s: Seconds on the clock.
        cpu_s: Processor seconds, of all its processes and threads.
        peak_mb: Most memory, of all its processes together.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0


class Program:
    """A program that runs, as a context manager that ends it.

    Args:
        command: The program and its arguments.
        env: Variables beside those of this process.
        cwd: Where it runs.
    """

    def __init__(
        self, command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = Path(command[0]).name
        self._began = time.perf_counter()
        # In a group of its own: what it starts can be ended with it.
        self._process = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._said = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._memory = Memory(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def said(self) -> str:
        """The last lines of what it said."""
        return "\n".join(self._lines)

    @property
    def _why(self) -> str:
        return "; ".join(list(self._lines)[-_WHY_LINES:])

    def cpu_s(self) -> float:
        """Processor seconds so far, with all that it started."""
        return cpu_s(self.pid)

    def peak_mb(self) -> float:
        """Most memory so far."""
        return self._memory.peak_mb

    def saw(self, text: str, *, within_s: float = 60.0) -> float:
        """Wait until it says something; the time of the clock at which it did.

        Raises:
            RuntimeError: It ended, or didn't say it.
        """
        until = time.monotonic() + within_s
        with self._said:
            while not any(text in line for line in self._lines):
                left = until - time.monotonic()
                if self._ended or left <= 0:
                    raise RuntimeError(f"{self.name} never said {text!r}: {self._why}")
                self._said.wait(left)
        return time.perf_counter()

    def listening(self, port: int, *, within_s: float = 30.0) -> None:
        """Wait until it accepts connections on 127.0.0.1.

        Raises:
            RuntimeError: It ended, or doesn't.
        """
        until = time.monotonic() + within_s
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.name} doesn't listen: {self._why}")
            time.sleep(0.05)

    def end(self, *, within_s: float = WITHIN_S) -> Used:
        """Wait until it has ended, and tell what it took from its start.

        Raises:
            RuntimeError: It failed, or is stuck.
        """
        fd = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(within_s * 1_000):
                raise RuntimeError(f"{self.name} isn't done after {within_s:.0f} s: {self._why}")
        finally:
            os.close(fd)
        wall = time.perf_counter() - self._began
        peak = self._memory.stop()
        _, status, used = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._reader.join(1.0)
        if self._process.returncode:
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}: {self._why}")
        return Used(wall_s=wall, cpu_s=used.ru_utime + used.ru_stime, peak_mb=peak)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        self._memory.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self._process.returncode is None:
            self._process.wait()
        self._reader.join(1.0)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process.stdout is not None:
            # Progress bars end their lines with a carriage return.
            for line in iter(self._process.stdout.readline, b""):
                with self._said:
                    self._lines.append(line.decode(errors="replace").rstrip()[-2_000:])
                    self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()


class Memory:
    """Looks at the memory of a process and all that it starts, again and again.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Look no more; the most that was seen."""
        self._stop.set()
        self._thread.join()
        return self.peak_mb

    def _watch(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, sum(_peak_mb(pid) for pid in family(self._pid)))
            if self._stop.wait(LOOKS_S):
                return


def family(pid: int) -> list[int]:
    """A process and all that it started, and they did, as far as they live."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all that it started, the ended ones too."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/stat").read_text(encoding="utf-8", errors="replace")
            # The name, in brackets, may hold anything; then user, system, and children's.
            total += sum(map(int, text.rpartition(")")[2].split()[11:15]))
    return total / _TICKS


def _peak_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024 / MB
    return 0.0


def found_program(name: str, *, package: str) -> Path:
    """The path of a program of the system.

    Args:
        name: Of the program.
        package: Debian's, that has it.

    Raises:
        Missing: It isn't there.
    """
    # What serves is beside what people call, and not on everybody's path.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"there is no {name}; on Debian and Ubuntu: apt install {package}")
    return Path(path)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def sync_file_system(folder: Path) -> float:
    """Wait until all of a file system is on its disk; the seconds that it took."""
    start = time.perf_counter()
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(fd)
    return time.perf_counter() - start


def figures(size: int, wall_s: float, *, sender: Used, receiver: Used) -> dict[str, float]:
    """What a row of the table shows.

    Args:
        size: Bytes that were moved.
        wall_s: Seconds that it took.
        sender: What the side took that had the bytes.
        receiver: What the other side took.
    """
    gb = size / (1000 * MB)
    return {
        "wall_s": wall_s,
        "mb_per_s": size / MB / wall_s,
        "sender_cpu_s_per_gb": sender.cpu_s / gb,
        "receiver_cpu_s_per_gb": receiver.cpu_s / gb,
        "sender_peak_mb": sender.peak_mb,
        "receiver_peak_mb": receiver.peak_mb,
    }


def used_of(reported: Mapping[str, Any]) -> Used:
    """What a process reported of itself; see `bench.wire.Usage`."""
    return Used(wall_s=reported["wall_s"], cpu_s=reported["cpu_s"], peak_mb=reported["peak_mb"])
