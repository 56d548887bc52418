"""A program ends with the block that it runs for, and says where it stood when that failed."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from sleap_rtc.testing.programs import running

ENDLESS = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
def for_ever():
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
