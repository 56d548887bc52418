"""Runs the two processes of one measurement, in a network namespace made for them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sleap_rtc.testing import netns

ROOT = Path(__file__).parent.parent
WITHIN_S = 600


def enter_namespace(module: str) -> None:
    """Start this program again inside a namespace, unless it runs in one.

    Args:
        module: The program, as ``python -m`` takes it.
    """
    if netns.inside() is None:
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "sleap_rtc.testing.netns", "--", *command])


def run_pair(kind: str, **options: Any) -> dict[str, Any]:
    """Run a sender and a receiver until both have ended.

    Args:
        kind: One of `bench.peer.KINDS`.
        options: For both; plain values.

    Returns:
        What each of them reported, under ``sender`` and ``receiver``.

    Raises:
        RuntimeError: One of them failed, and has said why on standard error; or is stuck.
    """
    with started(kind, **options) as processes:
        try:
            said = {role: p.communicate(timeout=WITHIN_S)[0] for role, p in processes.items()}
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{kind!r} isn't done after {WITHIN_S} s") from error
        for role, process in processes.items():
            if process.returncode:
                raise RuntimeError(f"the {role} of {kind!r} ended with {process.returncode}")
    return {role: json.loads(text) for role, text in said.items()}


@contextlib.contextmanager
def started(kind: str, **options: Any) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A sender and a receiver, which are killed at the end of the block if they still run.

    Args:
        kind: One of `bench.peer.KINDS`.
        options: For both; plain values.
    """
    ends = socket.socketpair()
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for role, end in zip(("sender", "receiver"), ends, strict=True):
            arguments = json.dumps({"kind": kind, "role": role, "fd": end.fileno(), **options})
            processes[role] = subprocess.Popen(
                [sys.executable, "-m", "bench.peer", arguments],
                cwd=ROOT,
                env={**os.environ, "SLEAP_RTC_LOG_LEVEL": "error"},
                pass_fds=[end.fileno()],
                stdout=subprocess.PIPE,
                text=True,
            )
            end.close()
        yield processes
    finally:
        for end in ends:
            end.close()
        for process in processes.values():
            if process.poll() is None:
                process.kill()
            process.communicate()
