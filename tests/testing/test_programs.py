"""A program ends with the block that it runs for, and says where it stood when that failed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from sleap_rtc.testing.programs import close, running

ENDLESS = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
def for_ever():
    print(child.pid, flush=True)
    threading.Event().wait()
for_ever()
"""


def test_one_that_ends_by_itself() -> None:
    with running([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE) as program:
        said, _ = program.communicate(timeout=60)
    assert (said, program.returncode) == ("1\n", 0)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of others' children")
def test_one_that_never_ends_does_not_outlive_a_failure_and_says_where_it_stood() -> None:
    started: list[int] = []

    def fail() -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with running([sys.executable, "-c", ENDLESS], **pipes) as program:
            assert program.stdout is not None
            started.append(os.pidfd_open(int(program.stdout.readline())))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failed:
        fail()
    (child,) = started
    try:
        assert select.select([child], [], [], 60)[0] == [child], "what it started goes on"
    finally:
        os.close(child)
    (note,) = failed.value.__notes__
    assert "for_ever" in note


def started(program: str) -> tuple[subprocess.Popen[str], threading.Thread, list[str]]:
    """A program, and a thread that reads what it says."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", program], **pipes)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    return process, reader, said


def test_one_that_runs_on_is_ended_with_what_it_said() -> None:
    process, reader, said = started("print('here', flush=True); input()")
    while not said and reader.is_alive():
        reader.join(0.01)
    close(process, reader, within_s=60)
    close(process, reader, within_s=60)
    assert (process.returncode, said) == (-signal.SIGKILL, ["here\n"])
    assert process.stdin.closed
    assert process.stdout.closed


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a pipe open")
def test_who_keeps_a_dead_ones_output_open_is_named_and_not_waited_for() -> None:
    orphan = "import os; print(os.getpid(), flush=True); input()"
    process, reader, said = started(
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    )
    while not said and reader.is_alive():
        reader.join(0.01)
    with pytest.raises(AssertionError, match=rf"kept open by .*{said[0].strip()} \("):
        close(process, reader, within_s=1)
    process.stdin.close()
    close(process, reader, within_s=60)
    assert process.stdout.closed
