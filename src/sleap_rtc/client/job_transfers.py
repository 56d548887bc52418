"""What is on its way for the jobs of this machine: their data, and what they have made.

A job is followed with ``jobs attach``; here is told, as it was last seen, what its
worker may still have to be sent, and what is to come home.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from sleap_rtc.client.submitted import SubmittedJob
from sleap_rtc.jobs.spec import TrackSpec

_PREPARING: Final = frozenset({"unsent", "queued", "assigned", "preparing"})


class JobTransfer(msgspec.Struct, frozen=True):
    """What is on its way for one job.

    Attributes:
        job: The job.
        direction: ``send``: its data, to the worker; ``fetch``: what it made, from there.
    """

    job: SubmittedJob
    direction: Literal["send", "fetch"]

    @property
    def size(self) -> int:
        """Bytes that come with the job; 0 of what comes home, which its worker knows."""
        if self.direction == "fetch":
            return 0
        return sum(package.size for package in self.job.spec.offered)

    @property
    def waits_for_us(self) -> bool:
        """Whether nothing happens before this machine follows the job again."""
        return self.direction == "fetch" or self.job.state == "unsent"


def of_jobs(jobs: Iterable[SubmittedJob]) -> list[JobTransfer]:
    """What is on its way for jobs, as far as this machine has seen."""
    found = []
    for job in jobs:
        if job.state in _PREPARING:
            found.append(JobTransfer(job=job, direction="send"))
        elif job.state == "completed" and job.download and not is_all_home(job):
            found.append(JobTransfer(job=job, direction="fetch"))
    return found


def is_all_home(job: SubmittedJob) -> bool:
    """Whether a job is done, and its worker needn't be asked any more: it may be gone for good."""
    if job.state != "completed":
        return False
    if isinstance(job.spec.work, TrackSpec):
        return "predictions" in job.home
    return all(f"model {n}" in job.home for n in range(len(job.spec.work.stages)))
