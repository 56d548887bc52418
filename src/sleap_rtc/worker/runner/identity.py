"""Which process is which: a pid alone is reused, so start time and boot belong to it.

Nothing is ever ended by its name, nor by a number that might have passed to
another process meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.values import Value

_PROC: Final = Path("/proc")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ProcessIdentity(Value, frozen=True):
    """One process, for all time.

    Attributes:
        pid: Its number.
        started: When it started: on Linux in clock ticks since boot, elsewhere in microseconds
            since 1970.
        boot: Which run of the machine: the kernel's boot id, elsewhere the time of boot.
    """

    pid: Annotated[int, Meta(gt=0)]
    started: Annotated[int, Meta(ge=0)]
    boot: Annotated[str, Meta(max_length=64)]


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a process that runs now, None when there is none (or only its zombie)."""
    started = _started(pid)
    return None if started is None else ProcessIdentity(pid=pid, started=started, boot=_boot())


def is_alive(process: ProcessIdentity) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def signal_group(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal the process group that this process leads, or led.

    The leader's number isn't given to another process while its group has members. So a group
    without its leader is signalled when its members are no older than the leader was.

    Returns:
        Whether there was anybody to signal.
    """
    if process.boot != _boot():
        return False
    leader = identify(process.pid)
    if leader is None:
        ours = [pid for pid in _group(process.pid) if (_started(pid) or 0) >= process.started]
        if not ours:
            return False
    elif leader != process:
        return False
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def group_alive(process: ProcessIdentity) -> bool:
    """Whether anybody of the group that this process leads, or led, still runs."""
    if process.boot != _boot():
        return False
    leader = identify(process.pid)
    if leader is not None:
        return leader == process
    return any((_started(pid) or 0) >= process.started for pid in _group(process.pid))


if sys.platform == "linux":

    def _boot() -> str:
        return _BOOT_ID.read_text(encoding="ascii").strip()

    def _started(pid: int) -> int | None:
        fields = _stat(pid)
        return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])

    def _group(group: int) -> Iterator[int]:
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields is not None and fields[0] not in ("Z", "X") and int(fields[2]) == group:
                    yield int(entry.name)

    def _stat(pid: int) -> list[str] | None:
        """``/proc/PID/stat`` from the state on; the name before it may hold anything."""
        try:
            text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        return text.rpartition(")")[2].split()

else:
    import psutil

    def _boot() -> str:
        return str(int(psutil.boot_time()))

    def _started(pid: int) -> int | None:
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return int(process.create_time() * 1_000_000)
        except psutil.Error:
            return None

    def _group(group: int) -> Iterator[int]:
        for pid in psutil.pids():
            try:
                if os.getpgid(pid) == group and _started(pid) is not None:
                    yield pid
            except (ProcessLookupError, PermissionError):
                continue
