"""The jobs that wait on a worker: in which order, how many, and what keeps them.

::

    ready ──► its turn          in the order in which they came, those first whose data is
      ▲  │                      here or offered
      │  └──► absent            it had its turn, and nobody offered its data
      ├───────┘                 somebody offers it: behind the others
      └────── held              paused before it began; resumed: behind the others

Pure: what data is at hand is asked of a function that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from sleap_rtc.domain.ids import DeviceId, JobId
from sleap_rtc.errors import QueueFull
from sleap_rtc.jobs.spec import JobSpec

AtHand = Callable[[JobSpec], bool]
"""Whether what a job needs is on this machine, or somebody offers it."""


class _One(msgspec.Struct):
    """A job that waits."""

    spec: JobSpec
    device: DeviceId | None
    kept: Literal["ready", "absent", "held"] = "ready"


class Waiting:
    """All of them.

    Args:
        most: How many may wait.
        most_each: How many of one device may.
    """

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._jobs: dict[JobId, _One] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[JobSpec]:
        """What they are asked to do."""
        return (one.spec for one in self._jobs.values())

    @property
    def is_empty(self) -> bool:
        """Whether no job could have its turn now."""
        return not any(one.kept == "ready" for one in self._jobs.values())

    def check_room(self, device: DeviceId) -> None:
        """See that one more job of this device may wait.

        Raises:
            QueueFull: Too many do.
        """
        if len(self._jobs) >= self._most:
            raise QueueFull(count=len(self._jobs), whose="jobs")
        mine = sum(one.device == device for one in self._jobs.values())
        if mine >= self._most_each:
            raise QueueFull(count=mine, whose="jobs of this device")

    def add(self, spec: JobSpec, device: DeviceId | None) -> None:
        """A job waits from now on, behind the others; one that does already keeps its place."""
        self._jobs.setdefault(spec.id, _One(spec, device))

    def next(self, at_hand: AtHand) -> JobId | None:
        """The job whose turn it is; None while there is none. It waits no more.

        One whose data nobody offers at the moment comes last, and may find it offered by then.
        """
        ready = [job_id for job_id, one in self._jobs.items() if one.kept == "ready"]
        if not ready:
            return None
        turn = next((i for i in ready if at_hand(self._jobs[i].spec)), ready[0])
        del self._jobs[turn]
        return turn

    def put_back(self, spec: JobSpec, device: DeviceId | None) -> None:
        """A job whose data nobody offers: it waits until :meth:`look_again` finds some."""
        self._jobs[spec.id] = _One(spec, device, kept="absent")

    def hold(self, spec: JobSpec, device: DeviceId | None) -> None:
        """A job that is paused: it waits until it is added again."""
        self._jobs[spec.id] = _One(spec, device, kept="held")

    def remove(self, job_id: JobId) -> None:
        """A job doesn't wait any more."""
        self._jobs.pop(job_id, None)

    def look_again(self, at_hand: AtHand) -> bool:
        """See whether data came for jobs that lacked it; whether some have their turn again."""
        back = [i for i, one in self._jobs.items() if one.kept == "absent" and at_hand(one.spec)]
        for job_id in back:
            one = self._jobs.pop(job_id)
            self._jobs[job_id] = _One(one.spec, one.device)
        return bool(back)
