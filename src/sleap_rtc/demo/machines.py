"""The demo's three machines: programs with a home of their own each, on one computer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sleap_rtc.errors import SleapRtcError

READY_S: Final = 60.0
STOP_S: Final = 20.0
_TAIL: Final = 15


class Machine:
    """Runs ``sleap-rtc`` with a home of its own.

    Args:
        home: The home.
        logs: Folder of the logs of what runs in the background.
    """

    def __init__(self, home: Path, logs: Path) -> None:
        self.home = home
        self._logs = logs

    def run(self, *arguments: str, secret: str | None = None) -> str:
        """Run a command; its progress is shown, its output is returned.

        Args:
            arguments: What follows ``sleap-rtc``.
            secret: Goes to its standard input.

        Raises:
            SleapRtcError: It failed; what it said is on the terminal already.
        """
        done = subprocess.run(
            self._command(arguments),
            env=self._environment(),
            input=secret,
            stdin=subprocess.DEVNULL if secret is None else None,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SleapRtcError(
                message=f"`sleap-rtc {' '.join(arguments)}` ended with {done.returncode}.",
                hint=f"The logs are in {self._logs}.",
            )
        return done.stdout

    def start(self, name: str, *arguments: str, until: str) -> Background:
        """Start something that goes on; returns when ``until`` is in what it prints.

        Raises:
            SleapRtcError: It ended, or wasn't ready in time.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command(arguments),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        background = Background(name, process, log)
        background.wait_for(until)
        return background

    def _command(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "sleap_rtc", *arguments]

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
            time.sleep(0.05)
        self.stop()
        raise self._failed(f"wasn't ready after {READY_S:g} s")

    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it: asked first, and made to after 20 s."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _failed(self, how: str) -> SleapRtcError:
        last = "\n".join(self.said().splitlines()[-_TAIL:])
        return SleapRtcError(message=f"The {self.name} {how}. It said:\n{last}")
