"""A log file: full disks, full files, and several processes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sleap_rtc.observe.logfile import LogFile

PROGRAM = """
import sys
from pathlib import Path
from loguru import logger
from sleap_rtc.observe.logs import set_up_logs
set_up_logs(level="info", style=sys.argv[2], directory=Path(sys.argv[1]), program="client",
            stderr_level="error")
for n in range(3):
    logger.info("line {}", n)
print("done")
sys.exit(7)
"""


@pytest.fixture
def said() -> list[str]:
    return []


def make(path: Path, said: list[str], *, most: int = 1_000_000, keep: int = 2) -> LogFile:
    return LogFile(path, most=most, keep=keep, complain=said.append)


def test_lines_are_added_to_a_private_file(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "client.log"
    for text in ("one\n", "two \udcff\n"):
        log = make(path, said)
        log.write(text)
        log.stop()
        log.stop()
    assert path.read_text() == "one\ntwo \\udcff\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert said == []


def test_a_full_file_makes_way_and_the_last_ones_stay(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "client.log"
    log = make(path, said, most=10)
    for n in range(5):
        log.write(f"line number {n}\n")
    log.stop()
    assert path.read_text() == "line number 4\n"
    full = sorted(tmp_path.glob("client.*.log"))
    assert [each.read_text() for each in full] == ["line number 2\n", "line number 3\n"]


def test_two_processes_share_a_file_and_only_one_gives_it_another_name(
    tmp_path: Path, said: list[str]
) -> None:
    path = tmp_path / "client.log"
    one, other = (make(path, said, most=10, keep=5) for _ in range(2))
    one.write("line number 0\n")
    other.write("line number 1\n")  # which it finds full
    one.write("line number 2\n")  # whose file has another name by now
    one.stop()
    other.stop()
    full = sorted(tmp_path.glob("client.*.log"))
    assert [p.read_text() for p in full] == ["line number 0\n"]
    assert path.read_text() == "line number 1\nline number 2\n"


def test_a_line_without_room_is_lost_and_said_once(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.log"
    log = make(path, said)
    real, room = os.write, [3, 0, 0]

    def full(fd: int, data: bytes) -> int:
        left = room.pop(0)
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:left])

    log.write("first\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write("second\n")
        log.write("third\n")
    log.write("fourth\n")
    log.stop()
    assert path.read_text() == "first\nsec\nfourth\n"
    assert said == [f"The log {path} can't be written (No space left on device)."]


def test_where_no_new_file_can_be_made_lines_are_lost(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.log"
    log = make(path, said, most=1)
    log.write("first\n")

    def refused(*_: Any, **__: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        log.write("second\n")
    log.write("third\n")
    log.stop()
    assert path.read_text() == "third\n"
    assert len(said) == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_full_disk_is_one_plain_warning_and_no_other_exit_code(
    tmp_path: Path, style: str
) -> None:
    (tmp_path / "client.log").symlink_to("/dev/full")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), style]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (7, "done\n")
    (line,) = done.stderr.splitlines()
    assert "client.log can't be written (No space left on device)." in line
    assert line.startswith("warning: " if style == "text" else "{")
