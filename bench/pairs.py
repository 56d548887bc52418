"""Runs the two processes of one measurement, in a network namespace made for them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
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
        RuntimeError: One of them failed; it has said why on standard error.
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
        said = {role: p.communicate(timeout=WITHIN_S)[0] for role, p in processes.items()}
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    for role, process in processes.items():
        if process.returncode:
            raise RuntimeError(f"the {role} of {kind!r} ended with {process.returncode}")
    return {role: json.loads(text) for role, text in said.items()}
