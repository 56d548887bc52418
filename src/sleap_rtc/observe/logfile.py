"""A log file that never gets in the way of what it tells of.

::

    logs/
    ├── worker.log                              the newest lines
    ├── worker.2026-03-01T12-00-00-000001.log   full ones; the last few stay
    └── …

Each line is one write, so that several processes may share a file; whoever fills
it gives it another name, and the others go on in the new one. A line that can't
be written (a full disk, a file system that is gone) is lost; that is said once,
and what logs goes on. When there is room again, so do the lines.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LogFile:
    """A file of lines, as a sink for logs.

    Args:
        path: The file; its folder exists.
        most: Bytes after which a new one is begun.
        keep: Number of full ones that stay.
        complain: Called once with a sentence, when a line can't be written.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(
        self, path: Path, *, most: int, keep: int, complain: Callable[[str], None]
    ) -> None:
        self._path = path
        self._most, self._keep = most, keep
        self._complain = complain
        self._complained = self._torn = False
        self._fd = self._open()

    def write(self, line: str) -> None:
        """Add a line, which ends with a line feed; nothing is raised."""
        data = line.encode("utf-8", errors="backslashreplace")
        try:
            if self._fd < 0 or os.fstat(self._fd).st_size >= self._most:
                self._turn()
            if self._torn:  # of a line that had no room, only the beginning is there
                data = b"\n" + data
            while data:
                data = data[os.write(self._fd, data) :]
                self._torn = bool(data)
        except OSError as error:
            if not self._complained:
                self._complained = True
                why = error.strerror or type(error).__name__
                self._complain(f"The log {self._path} can't be written ({why}).")

    def stop(self) -> None:
        """Close it."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        return os.open(self._path, _FLAGS, 0o600)

    def _turn(self) -> None:
        """Go on in a new file; the full one gets a name with the time."""
        if self._fd >= 0 and self._is_ours():
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S-%f")
            self._path.rename(self._path.with_name(f"{self._path.stem}.{moment}.log"))
            full = sorted(self._path.parent.glob(f"{self._path.stem}.*.log"))
            for old in full[: -self._keep]:
                old.unlink(missing_ok=True)
        self.stop()
        self._fd = self._open()

    def _is_ours(self) -> bool:
        """Whether the name is still the file's; another process may have been quicker."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        return False
