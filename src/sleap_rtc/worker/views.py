"""How jobs stand, without reading their logs anew each time.

A log only grows, so what was read of it once is kept: where the reader is, and the view up to
there. Whoever asks for a job again pays for its new events alone, however long the log is::

    events.jsonl   1 2 3 … 59,998 59,999 │ 60,000 60,001
                   ───── kept ──────────   ─── read ────
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from sleap_rtc.errors import SleapRtcError
from sleap_rtc.jobs.lifecycle import JobView, replay
from sleap_rtc.worker.job_directory import JobDirectory
from sleap_rtc.worker.runner.logfile import Known, LogReader

KEPT: Final = 256
"""Jobs of which the view is kept, those asked for last: more than one list of jobs names."""


class _One:
    """What is known of one job."""

    def __init__(self, job: JobDirectory) -> None:
        self.lock = threading.Lock()
        self.log = LogReader(job.log)
        self.view = JobView()


class Views:
    """The views of a worker's jobs. For any number of threads.

    Args:
        most: Jobs that are kept in memory.
    """

    def __init__(self, *, most: int = KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: OrderedDict[Path, _One] = OrderedDict()

    def __call__(self, job: JobDirectory) -> JobView:
        """A job as it stands. The first time, this reads its whole log: not for an event loop.

        Raises:
            DataError: Its log isn't readable, or is shorter than it was; asked again, it is read
                from the start.
            IllegalTransition: Its log contradicts itself.
        """
        one = self._one(job)
        with one.lock:
            try:
                while events := one.log.read():
                    one.view = replay(events, one.view)
            except SleapRtcError:
                with self._lock:
                    if self._jobs.get(job.root) is one:
                        del self._jobs[job.root]
                raise
            return one.view

    def known(self, job: JobDirectory) -> Known:
        """What was read of a job's log, without reading: a writer needn't read that again."""
        with self._lock:
            one = self._jobs.get(job.root)
        if one is None or not one.lock.acquire(blocking=False):
            return Known()
        try:
            return Known(view=one.view, end=one.log.end)
        finally:
            one.lock.release()

    def _one(self, job: JobDirectory) -> _One:
        with self._lock:
            one = self._jobs.get(job.root)
            if one is None:
                one = self._jobs[job.root] = _One(job)
            self._jobs.move_to_end(job.root)
            while len(self._jobs) > self._most:
                self._jobs.popitem(last=False)
            return one
