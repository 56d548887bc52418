"""The directory of one job on its worker, and the folder of them all.

::

    <jobs>/<job id>/
      job.json            the specification, as it was submitted
      submitter.json      who submitted it
      plan.json           what the daemon decided for the runner
      lock                held by the one process that writes here
      events.jsonl        the truth: the job's numbered events
      reserve             disk space kept free for the log's last words
      runner.json         the runner's identity and its socket
      runner.log          what the runner itself had to say
      trainer.json        the engine's process, while one runs
      stages/0/plan.json      what the engine was asked for in this stage
      stages/0/outcome.json   how the engine's run ended, until its model is in the library
      stages/0/attempt-1/     what the engine wrote
      predictions/        the output of a tracking job

A job appears as a whole, by one rename, with its first event in its log.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from sleap_rtc.domain.ids import DeviceId, JobId, called, is_uuid7
from sleap_rtc.domain.models import Line
from sleap_rtc.domain.values import Document, decode, encode, encode_pretty
from sleap_rtc.errors import AlreadyExists, Conflict, DataError, UnknownJob
from sleap_rtc.files.claim import Claim
from sleap_rtc.files.durable import (
    TEMPORARY,
    disk_errors,
    place_directory,
    sync_directory,
    write_new,
)
from sleap_rtc.jobs.events import StateChanged
from sleap_rtc.jobs.spec import JobSpec
from sleap_rtc.worker.runner.logfile import LogReader, LogWriter

_OWNER_ONLY: Final = 0o700


class Submitter(Document, frozen=True):
    """Who submitted a job: proven by the link's handshake.

    Attributes:
        device: The device's public key.
        name: What it is called in the room.
    """

    device: Annotated[DeviceId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    name: Line = ""

    @property
    def called(self) -> str:
        """As others are told of it."""
        return called(self.name, self.device)


class JobDirectory(msgspec.Struct, frozen=True):
    """Where the things of one job are.

    Attributes:
        root: The job's directory.
    """

    root: Path

    @property
    def spec(self) -> Path:
        """The specification."""
        return self.root / "job.json"

    @property
    def submitter(self) -> Path:
        """Who submitted it."""
        return self.root / "submitter.json"

    @property
    def plan(self) -> Path:
        """What the daemon decided."""
        return self.root / "plan.json"

    @property
    def log(self) -> Path:
        """The events."""
        return self.root / "events.jsonl"

    @property
    def runner(self) -> Path:
        """The runner's identity and socket."""
        return self.root / "runner.json"

    @property
    def runner_log(self) -> Path:
        """What the runner itself had to say."""
        return self.root / "runner.log"

    @property
    def trainer(self) -> Path:
        """The engine's process."""
        return self.root / "trainer.json"

    @property
    def predictions(self) -> Path:
        """The output of a tracking job."""
        return self.root / "predictions"

    @property
    def stages(self) -> Path:
        """What the engine was asked for, and wrote."""
        return self.root / "stages"

    def stage(self, number: int) -> Path:
        """The folder of a stage."""
        return self.stages / str(number)

    def read_spec(self) -> JobSpec:
        """The specification.

        Raises:
            UnknownJob: There is no job here.
            DataError: Not readable.
        """
        try:
            data = self.spec.read_bytes()
        except FileNotFoundError:
            raise UnknownJob(name=self.root.name) from None
        return decode(JobSpec, data, what=str(self.spec))

    def read_submitter(self) -> Submitter | None:
        """Who submitted it, None where nobody did over a link.

        Raises:
            DataError: Not readable.
        """
        try:
            data = self.submitter.read_bytes()
        except FileNotFoundError:
            return None
        return decode(Submitter, data, what=str(self.submitter))

    def taken_at(self) -> datetime:
        """When the worker took the job, by its own clock; long ago, where its log is unreadable."""
        try:
            first = LogReader(self.log).read(1)
        except DataError:
            first = []
        return first[0].at if first else datetime.min.replace(tzinfo=UTC)

    def claim(self) -> Claim:
        """Be the one process that writes here, until the claim is released.

        Raises:
            Busy: Another process is.
            UnknownJob: There is no job here.
        """
        if not self.spec.is_file():
            raise UnknownJob(name=self.root.name)
        return Claim(self.root, what=f"Job {self.root.name}")


class JobStore:
    """All jobs of a worker.

    Args:
        root: The folder; made when the first job comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._taken: dict[JobId, datetime] = {}

    def create(
        self,
        spec: JobSpec,
        *,
        clock: Callable[[], datetime],
        submitter: Submitter | None = None,
    ) -> JobDirectory:
        """Make the directory of a job, queued. Asking twice for one job is asking once.

        Raises:
            Conflict: Another job has this id.
            OutOfSpace: The disk is full.
            PathNotPermitted: This user may not write there.
        """
        job = JobDirectory(root=self.root / spec.id)
        with disk_errors(job.root):
            self.root.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
            new = JobDirectory(root=self.root / f"{TEMPORARY}{secrets.token_hex(8)}")
            new.root.mkdir(mode=_OWNER_ONLY)
            try:
                write_new(new.spec, encode_pretty(spec))
                if submitter is not None:
                    write_new(new.submitter, encode_pretty(submitter))
                with LogWriter(new.log, clock=clock) as log:
                    log.append(StateChanged(state="queued"))
                sync_directory(new.root)
                place_directory(new.root, job.root)
            except AlreadyExists:
                if encode(job.read_spec()) != encode(spec):
                    raise Conflict(
                        message=f"Job {spec.id} exists and asks for something else.",
                        hint="Submit it again under a new id.",
                    ) from None
            finally:
                shutil.rmtree(new.root, ignore_errors=True)
        return job

    def get(self, job_id: str) -> JobDirectory:
        """The directory of a job.

        Raises:
            UnknownJob: There is none with this id.
        """
        job = JobDirectory(root=self.root / job_id)
        if not is_uuid7(job_id) or not job.spec.is_file():
            raise UnknownJob(name=job_id[:80])
        return job

    def ids(self) -> list[JobId]:
        """The ids of all jobs, in the order in which they were taken.

        An id says a time as well, but that is the word of whoever submitted the job. Reads the
        first event of each job that it hasn't seen yet: not for an event loop.
        """
        try:
            names = [JobId(e.name) for e in self.root.iterdir() if is_uuid7(e.name)]
        except FileNotFoundError:
            return []
        # A log's first event stays as it is. What was removed is forgotten.
        known = self._taken
        taken = {i: known.get(i) or JobDirectory(root=self.root / i).taken_at() for i in names}
        self._taken = taken
        return sorted(taken, key=lambda job_id: (taken[job_id], job_id))

    def remove(self, job_id: str) -> None:
        """Remove a job's directory with everything in it; its models are in the library.

        Raises:
            UnknownJob: There is none with this id.
            Busy: It runs.
        """
        job = self.get(job_id)
        with job.claim():
            # The rename makes it disappear at once, whatever the removal meets.
            gone = self.root / f"{TEMPORARY}{secrets.token_hex(8)}"
            job.root.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
