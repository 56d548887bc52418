from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sleap_rtc.files.locking import try_lock, wait_for_lock

HOLDS = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Opens the same file, once more with each call."""
    fds = []

    def open_it() -> int:
        fds.append(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)


def test_one_has_it_until_it_is_closed(opened: Callable[[], int], tmp_path: Path) -> None:
    one = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    two = opened()
    assert try_lock(one) == "had"
    assert try_lock(one) == "had"  # it is its own
    assert try_lock(two) == try_lock(two, shared=True) == "taken"
    os.close(one)
    assert try_lock(two) == "had"


def test_several_share_it(opened: Callable[[], int]) -> None:
    one, two, three = opened(), opened(), opened()
    assert try_lock(one, shared=True) == try_lock(two, shared=True) == "had"
    assert wait_for_lock(three, shared=True)
    assert try_lock(three) == "taken"


def test_it_is_waited_for(opened: Callable[[], int], tmp_path: Path) -> None:
    one, two = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT), opened()
    assert wait_for_lock(one)
    told: list[bool] = []
    waiting = threading.Thread(target=lambda: told.append(wait_for_lock(two)))
    waiting.start()
    assert not told
    os.close(one)
    waiting.join(60)
    assert told == [True]


def test_who_is_killed_has_it_no_more(opened: Callable[[], int], tmp_path: Path) -> None:
    fd = opened()
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "lock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert try_lock(fd) == "taken"
        process.kill()
        process.wait(60)
    assert try_lock(fd) == "had"


def test_a_file_system_without_locks(
    opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, code = opened(), errno.ENOLCK

    def flock(_fd: int, _how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert try_lock(fd) == "none"
    assert wait_for_lock(fd) is False
    code = errno.EIO
    for lock in (try_lock, wait_for_lock):
        with pytest.raises(OSError, match="Input/output"):
            lock(fd)
