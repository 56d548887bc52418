from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sleap_rtc.errors import Busy
from sleap_rtc.files.claim import LOCK, Claim
from sleap_rtc.testing.programs import running

HOLD = """
import sys
from pathlib import Path
from sleap_rtc.files.claim import Claim
claim = Claim(Path(sys.argv[1]), what="it")
print("held", flush=True)
sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with Claim(folder, what="the folder"):
        with pytest.raises(Busy, match=f"the folder is in use .*process {os.getpid()}"):
            Claim(folder, what="the folder")
        Claim(tmp_path / "other", what="x").release()
    again = Claim(folder, what="the folder")
    again.release()
    again.release()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=str(process.pid)):
            Claim(tmp_path, what="it")
        process.kill()
        process.wait()
    Claim(tmp_path, what="it").release()


def test_removed_with_everything_in_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("kept")
    folder = tmp_path / "folder"
    claim = Claim(folder, what="it")
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_text("x")
    (folder / "file").write_text("x")
    (folder / "link").symlink_to(outside)
    claim.remove()
    assert not folder.exists()
    assert (outside / "x").read_text() == "kept"
    Claim(folder, what="it").release()


def test_many_claim_and_remove_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    inside = 0
    most = 0
    held = 0
    count = threading.Lock()

    def work() -> None:
        nonlocal inside, most, held
        for _ in range(100):
            try:
                claim = Claim(folder, what="it")
            except Busy:
                continue
            with count:
                inside += 1
                held += 1
                most = max(most, inside)
            with count:
                inside -= 1
            claim.remove()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert held > 10


def test_what_a_stranger_wrote_in_the_lock_stays_one_short_line(tmp_path: Path) -> None:
    claim = Claim(tmp_path, what="it")
    (tmp_path / LOCK).write_bytes(b"\x1b[31m\n\xff" + b"y" * 1000)
    with pytest.raises(Busy) as caught:
        Claim(tmp_path, what="it")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    (tmp_path / LOCK).write_bytes(b"")
    with pytest.raises(Busy, match=r"another process\.$"):
        Claim(tmp_path, what="it")
    claim.release()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        Claim(tmp_path / "file", what="it")


def test_a_link_to_nowhere_is_an_error_also_above_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "unplugged")
    for folder in (tmp_path / "link", tmp_path / "link" / "folder"):
        with pytest.raises(FileExistsError):
            Claim(folder, what="it")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(code: int) -> None:
        def flock(fd: int, operation: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", flock)

    refuse(errno.ENOLCK)
    Claim(tmp_path, what="it").release()
    refuse(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        Claim(tmp_path, what="it")
