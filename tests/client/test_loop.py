"""The event loop of a command ends, whatever its threads wait for."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from sleap_rtc.client.loop import run

LOOKED_UP = """
import asyncio, socket, threading
from sleap_rtc.client.loop import run

socket.getaddrinfo = lambda *_: threading.Event().wait()

async def connect():
    async with asyncio.timeout(0.1):
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, "lab.example", 1)

try:
    run(connect())
except TimeoutError:
    print("given up")
"""

INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
from sleap_rtc.client import loop

loop.GRACE_S = float(sys.argv[1])
written = threading.Event()

def write():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    if loop.GRACE_S < 1:
        threading.Event().wait()
    time.sleep(0.1)  # the disk
    written.set()

try:
    loop.run(asyncio.to_thread(write))
except KeyboardInterrupt:
    print("interrupted", written.is_set(), flush=True)
    os._exit(130)
"""


def said(program: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_what_work_returns_and_raises() -> None:
    async def work(value: int) -> float:
        return 1 / value

    assert run(work(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        run(work(0))


def test_who_gives_up_does_not_wait_for_a_silent_name_server() -> None:
    assert said(LOOKED_UP) == (0, "given up\n")


@pytest.mark.parametrize(("grace_s", "written"), [("60", True), ("0.1", False)])
def test_who_interrupts_waits_for_what_is_written_but_not_for_ever(
    grace_s: str, written: bool
) -> None:
    assert said(INTERRUPTED, grace_s) == (130, f"interrupted {written}\n")


def test_names_are_looked_up() -> None:
    async def find() -> list[tuple[object, ...]]:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo("localhost", 80, type=1)

    assert any(entry[4][0] in ("127.0.0.1", "::1") for entry in run(find()))
