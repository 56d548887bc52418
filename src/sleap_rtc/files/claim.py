"""A folder that one process at a time works in.

The claim is a lock on the file ``lock`` in the folder, which the kernel takes back when the process
ends, however it ends. The file says who holds it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
from pathlib import Path
from typing import Final, Self

from sleap_rtc.errors import Busy
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.locking import try_lock

LOCK: Final = "lock"


class Claim:
    """A folder claimed by this process.

    Args:
        directory: Made when it isn't there.
        what: Names it in the error.

    Raises:
        Busy: Another process holds it, or this one already.
        OutOfSpace: It can't be made.
        PathNotPermitted: This user may not write there.
    """

    def __init__(self, directory: Path, *, what: str) -> None:
        self.directory = directory
        path = directory / LOCK
        while True:
            with disk_errors(path):
                try:
                    directory.mkdir(parents=True, exist_ok=True)
                    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    self._fd = os.open(path, flags, 0o666)
                except (FileNotFoundError, FileExistsError):
                    if _is_in_the_way(directory) or not directory.parent.is_dir():
                        raise
                    continue  # who held the folder has just removed it
            try:
                _lock(self._fd, what)
                if _still_at(self._fd, path):
                    break
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)
        # Who it is only serves the other's message, so a full disk doesn't matter here.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        """Let others claim the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Remove the folder with everything in it, and let go of it; twice is once."""
        if self._fd < 0:
            return
        # The lock goes last, so that nobody claims a folder that is half removed.
        for entry in self.directory.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_in_the_way(directory: Path) -> bool:
    """Whether something else is there. Looked at once: it may be removed and made at any time."""
    try:
        return not stat.S_ISDIR(directory.stat().st_mode)
    except FileNotFoundError:
        return directory.is_symlink()


def _lock(fd: int, what: str) -> None:
    # Without locks two processes that write the same package write the same bytes, and everything
    # is checked before it is used.
    if try_lock(fd) == "taken":
        said = os.pread(fd, 200, 0).decode("utf-8", "replace")
        who = "".join(c for c in said if c.isprintable())
        raise Busy(what=what, by=f" ({who})" if who else "")


def _still_at(fd: int, path: Path) -> bool:
    """Whether the locked file is still the one with that name."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
