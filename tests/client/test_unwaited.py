"""Threads that nobody waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from sleap_rtc.client.unwaited import unwaited
from sleap_rtc.errors import NotFound


async def test_what_a_call_gives_or_raises_is_told() -> None:
    assert await unwaited(lambda: 3, name="test") == 3

    def fail() -> None:
        raise NotFound(message="It is gone.")

    with pytest.raises(NotFound, match="gone"):
        await unwaited(fail, name="test")


async def test_one_that_can_be_told_to_stop_is_waited_for() -> None:
    stop, begun, ended = threading.Event(), threading.Event(), []

    def call() -> None:
        begun.set()
        assert stop.wait(30)
        ended.append(1)

    task = asyncio.create_task(unwaited(call, name="test", stop=stop.set))
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1]


async def test_one_that_fails_after_it_was_given_up_troubles_nobody() -> None:
    go_on, begun = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(60)
        raise NotFound(message="It is gone.")

    task = asyncio.create_task(unwaited(call, name="left"))
    assert await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [thread] = [each for each in threading.enumerate() if each.name == "left"]
    go_on.set()
    await asyncio.to_thread(thread.join, 30)
    await asyncio.sleep(0)  # what it told the loop is heard, and no matter


def test_a_program_ends_although_a_call_still_waits() -> None:
    program = """
import asyncio, threading
from sleap_rtc.client.unwaited import unwaited

async def main():
    asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
    await unwaited(threading.Event().wait, name="dead")

try:
    asyncio.run(main())
except asyncio.CancelledError:
    print("ended")
"""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr
    assert time.monotonic() - began < 50
