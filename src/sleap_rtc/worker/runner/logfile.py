"""``events.jsonl`` on disk: one writer, any number of readers.

The writer appends an event before anybody hears of it. What counts (states,
commands, errors, records, outputs) is synced; progress, epochs and log lines
are left to the kernel, so they survive the end of the process but maybe not a
power cut. When the log is opened for writing, what is behind its last whole line
is cut off; if there are whole lines behind a damaged one, the cut part is kept
beside it as ``events.jsonl.damaged-N``, N being the number of the damaged event.

A full disk never leaves half a line: the file is cut back to its last event. For
the events that count, 128 KiB are reserved in a file of their own and given back
to the disk when it is full, so that the log can still say how the job ended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec
from loguru import logger

from sleap_rtc.errors import DataError
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file
from sleap_rtc.files.space import reserve
from sleap_rtc.jobs.eventlog import HEAD, decode_line, encode_line, is_whole, line_length
from sleap_rtc.jobs.events import (
    Body,
    CommandReceived,
    ErrorTold,
    JobEvent,
    ModelChanged,
    OutputReady,
    StateChanged,
)
from sleap_rtc.jobs.lifecycle import JobView, fold

RESERVE: Final = 128 * 1024
"""Bytes kept free for the last words of a job."""
BATCH: Final = 500
"""Events that one read gives, if no other number is asked for."""
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of log after which a read gives what it has."""

COUNTS: Final = (StateChanged, CommandReceived, ErrorTold, ModelChanged, OutputReady)
"""Events that are synced, and that the reserve is for."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Known(msgspec.Struct, frozen=True):
    """What was read of a log before.

    Attributes:
        view: The job after these events.
        end: Bytes of their lines.
    """

    view: JobView = JobView()
    end: int = 0


class LogWriter:
    """The one writer of a job's log; whoever makes it holds the job's claim.

    Args:
        path: The log; made if there is none.
        clock: Gives the present time, UTC.
        known: What this process has read of the log already, and need not read again.

    Raises:
        DataError: A whole line holds no event, or one that can't follow; nothing is changed.
        NewerFormat: Written by a later sleap-rtc.
        OutOfSpace: The disk is full.
        PathNotPermitted: This user may not write there.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime], known: Known | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._reserve = path.with_name("reserve")
        known = known or Known()
        self._view = known.view
        self._end = known.end
        with disk_errors(path):
            self._file = path.open("a+b", buffering=0)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    @property
    def view(self) -> JobView:
        """The job's state after the last event."""
        return self._view

    def append(self, body: Body) -> JobEvent:
        """Add an event; when this returns, it may be told.

        Raises:
            IllegalTransition: A state that can't follow; nothing is written.
            OutOfSpace: The disk is full; the log ends with the event before.
        """
        event = JobEvent(n=self._view.number + 1, at=self._clock(), body=body)
        view = fold(self._view, event)
        line = encode_line(event)
        durable = isinstance(body, COUNTS)
        with disk_errors(self._path, need=len(line)):
            try:
                self._write(line, durable=durable)
            except OSError as error:
                if error.errno not in _FULL or not durable or not self._release():
                    raise
                self._write(line, durable=durable)
        self._end += len(line)
        self._view = view
        return event

    def close(self) -> None:
        """Sync and close. The reserve stays while the job can still go on."""
        if self._file.closed:
            return
        with contextlib.suppress(OSError):
            sync_file(self._file.fileno())
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        if self._path.stat().st_size < self._end:  # cut by another writer meanwhile
            self._view, self._end = JobView(), 0
        with self._path.open("rb") as file:
            for line in _whole_lines(file, self._end):
                event = decode_line(line, n=self._view.number + 1)
                self._view = fold(self._view, event)
                self._end += len(line)
        size = self._path.stat().st_size
        if size > self._end:
            self._cut(size)
        sync_directory(self._path.parent)
        self._keep_reserve()

    def _cut(self, size: int) -> None:
        """Drop what is behind the last whole line."""
        bound = logger.bind(log=str(self._path), events=self._view.number, cut=size - self._end)
        if _has_whole_line(self._path, self._end):
            number = self._view.number + 1
            aside = self._path.with_name(f"{self._path.name}.damaged-{number}")
            with self._path.open("rb") as source, aside.open("wb") as target:
                source.seek(self._end)
                shutil.copyfileobj(source, target)
                target.flush()
                sync_file(target.fileno())
            bound.error("the job log is damaged; events behind the damage are set aside")
        else:
            bound.warning("the job log ended in the middle of an event; that event is dropped")
        os.ftruncate(self._file.fileno(), self._end)
        sync_file(self._file.fileno())

    def _write(self, line: bytes, *, durable: bool) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
            if durable:
                sync_file(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self._end)
            raise

    def _keep_reserve(self) -> None:
        """Hold disk space back. Best effort: a disk that is full already has none to hold."""
        if self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                reserve(file.fileno(), RESERVE)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._release()

    def _release(self) -> bool:
        """Give the reserve back to the disk; False when it was given before."""
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        logger.bind(log=str(self._path)).warning("the disk is full; the log's reserve is used")
        return True


class LogReader:
    """Reads a log from behind event ``since`` on, while it is written.

    Holds one batch of events at a time, whatever the log's size.

    Args:
        path: The log; it need not exist yet.
        since: The last event that is known already, 0 for none.
    """

    def __init__(self, path: Path, *, since: int = 0) -> None:
        self._path = path
        self._since = since
        self._at = 0
        self._number = 0

    @property
    def number(self) -> int:
        """The last event given, or ``since`` before the first."""
        return max(self._number, self._since)

    @property
    def end(self) -> int:
        """Bytes of the lines that were read or passed over."""
        return self._at

    def read(self, most: int = BATCH) -> list[JobEvent]:
        """The next events, up to ``most``; none when there are no more for now.

        Raises:
            DataError: The log ends before ``since``: after a power cut it may have lost its
                last, unsynced events. Follow it again from the start.
            NewerFormat: Written by a later sleap-rtc.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            if self._since:
                raise self._too_short() from None
            return []
        with file:
            self._skip(file)
            events: list[JobEvent] = []
            start = self._at
            for line in _whole_lines(file, self._at):
                events.append(decode_line(line, n=self._number + 1))
                self._number += 1
                self._at += len(line)
                if len(events) >= most or self._at - start >= BATCH_BYTES:
                    break
            return events

    def _skip(self, file: BinaryIO) -> None:
        """Go behind event ``since``, looking at the lines' lengths alone."""
        size = os.fstat(file.fileno()).st_size
        if size < self._at:
            raise self._too_short()
        file.seek(self._at)
        while self._number < self._since:
            length = line_length(file.read(HEAD))
            if length is None or self._at + length > size:
                raise self._too_short()
            self._at += length
            self._number += 1
            file.seek(self._at)

    def _too_short(self) -> DataError:
        return DataError(
            what=str(self._path),
            why=f"it has {self._number} events, and those after {self.number} were asked for",
            hint="Follow the job again from its start.",
        )


def _whole_lines(file: BinaryIO, at: int) -> Iterator[bytes]:
    """Whole lines from offset ``at`` up to the first one that isn't."""
    file.seek(at)
    while (length := line_length(head := file.read(HEAD))) is not None:
        line = head + file.read(length - HEAD)
        if not is_whole(line):
            return
        yield line


def _has_whole_line(path: Path, at: int) -> bool:
    """Whether an undamaged line begins after some newline behind offset ``at``."""
    with path.open("rb") as file:
        file.seek(at)
        while file.readline(RESERVE):
            start = file.tell()
            if next(_whole_lines(file, start), None) is not None:
                return True
            file.seek(start)
    return False
