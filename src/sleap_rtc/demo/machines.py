"""The demo's three machines: programs with a home of their own each, on one computer."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sleap_rtc.demo.interrupts import Interrupts
from sleap_rtc.engines.process import guarded
from sleap_rtc.errors import SleapRtcError

READY_S: Final = 60.0
STOP_S: Final = 20.0
_LOOK_S: Final = 0.05
_TAIL: Final = 15


class Machine:
    """Runs ``sleap-rtc`` with a home of its own.

    Args:
        home: The home.
        logs: Folder of the logs of what runs in the background.
        interrupts: Held back while a program is started; None where nobody takes them.
    """

    def __init__(self, home: Path, logs: Path, interrupts: Interrupts | None = None) -> None:
        self.home = home
        self._logs = logs
        self._interrupts = interrupts or Interrupts()
        self._running: list[Background] = []

    def run(self, *arguments: str, secret: str | None = None) -> str:
        """Run a command; its progress is shown, its output is returned.

        It is ended when that is interrupted.

        Args:
            arguments: What follows ``sleap-rtc``.
            secret: Goes to its standard input.

        Raises:
            SleapRtcError: It failed; what it said is on the terminal already.
        """
        process: subprocess.Popen[str] | None = None
        try:
            with self._interrupts.held():
                process = subprocess.Popen(
                    self._command(arguments),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL if secret is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            output, _ = process.communicate(secret)
        except BaseException:
            if process is not None:
                with process:
                    process.kill()
            raise
        if process.returncode:
            raise SleapRtcError(
                message=f"`sleap-rtc {' '.join(arguments)}` ended with {process.returncode}.",
                hint=f"The logs are in {self._logs}.",
            )
        return output

    def start(self, name: str, *arguments: str, until: str) -> Background:
        """Start something that goes on; returns when ``until`` is in what it prints.

        :meth:`stop` ends it, also when this raises.

        Raises:
            SleapRtcError: It ended, or wasn't ready in time.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("wb") as file, self._interrupts.held():
            process = subprocess.Popen(
                self._command(arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            background = Background(name, process, log)
            self._running.append(background)
        background.wait_for(until)
        return background

    def stop(self) -> None:
        """End what was started, the last one first; at once when somebody is in a hurry."""
        for background in reversed(self._running):
            background.stop(lambda: self._interrupts.urgent)

    def _command(self, arguments: Sequence[str]) -> list[str]:
        # A demo that is killed can't stop them.
        return guarded([sys.executable, "-m", "sleap_rtc", *arguments])

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SLEAP_RTC_")}
        for name in ("SLEAP_RTC_ENGINES", "SLEAP_RTC_SLEAP_NN_PYTHON", "SLEAP_RTC_NETNS"):
            if name in os.environ:
                kept[name] = os.environ[name]
        width = str(shutil.get_terminal_size().columns)
        return {**kept, "SLEAP_RTC_HOME": str(self.home), "COLUMNS": width}


class Background:
    """A program that goes on until it is stopped.

    Args:
        name: What people call it.
        process: The process.
        log: What it prints.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    def wait_for(self, text: str) -> None:
        """Wait until ``text`` is in what it prints.

        Raises:
            SleapRtcError: It ended, or it took longer than a minute.
        """
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if text in self.said():
                return
            if self._process.poll() is not None:
                raise self._failed(f"ended with {self._process.returncode}")
            time.sleep(_LOOK_S)
        self.stop()
        raise self._failed(f"wasn't ready after {READY_S:g} s")

    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self, urgent: Callable[[], bool] = lambda: False) -> None:
        """End it: asked first, and made to after 20 s, or as soon as it is urgent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            end = time.monotonic() + STOP_S
            while self._process.poll() is None:
                if urgent() or time.monotonic() > end:
                    self._process.kill()
                    self._process.wait()
                else:
                    time.sleep(_LOOK_S)

    def _failed(self, how: str) -> SleapRtcError:
        last = "\n".join(self.said().splitlines()[-_TAIL:])
        return SleapRtcError(message=f"The {self.name} {how}. It said:\n{last}")


def end_trainings(box: Path) -> None:
    """Have the trainings of a worker that has stopped end too: they go on without one.

    Each keeps its checkpoint, as when its machine is shut down, and goes on from there with the
    next worker.

    Args:
        box: The worker's folder.
    """
    from sleap_rtc.worker.job_directory import JobDirectory  # noqa: PLC0415 - seldom needed
    from sleap_rtc.worker.runner.client import attach  # noqa: PLC0415

    for root in sorted(box.glob("jobs/*")):
        runner = attach(JobDirectory(root=root))
        if runner is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner.process.pid, signal.SIGTERM)
