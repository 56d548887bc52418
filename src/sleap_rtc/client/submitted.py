"""The jobs that this machine submitted, kept so that any of its processes can go on with them.

::

    <home>/jobs/<job id>.json      one per job; written before the job is sent
    <home>/jobs/.lock              held by a process that changes one, for an instant

The file says where the inputs are, so that a client that was killed while
sending can offer them again, and what has come home already.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.ids import DeviceId, JobId, ModelId, RoomId, is_uuid7
from sleap_rtc.domain.models import Line, Utc
from sleap_rtc.domain.values import Document, decode, encode_pretty
from sleap_rtc.errors import AmbiguousName, DataError, UnknownJob
from sleap_rtc.files.durable import disk_errors, write_new, write_replacing
from sleap_rtc.files.locking import wait_for_lock
from sleap_rtc.jobs.spec import JobSpec

LocalPath = Annotated[str, Meta(max_length=4096)]
LOCK: Final = ".lock"
MIN_PREFIX: Final = 4


class SubmittedJob(Document, frozen=True):
    """A job as the machine that submitted it knows it.

    Attributes:
        spec: What was asked for.
        room: The room.
        worker: The worker's name.
        device: The worker's key: only that device is asked about the job.
        submitted_at: When, UTC.
        files: Path in the package → path on this machine.
        offered: Ids, in this machine's library, of models that are offered with it.
        download: Whether models come home when they are ready.
        alias: What they are to be called at home.
        output: Where predictions are put as they arrive: a directory.
        targets: Video's path in the package → where its predictions are to be in the end.
        models: Stage → id of its model in this machine's library.
        home: What is home: ``model 0``, ``predictions``.
        state: The last state that was seen; ``unsent`` until the worker has told one.
    """

    spec: JobSpec
    room: RoomId
    worker: Line
    device: Annotated[DeviceId, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    submitted_at: Utc
    files: Annotated[dict[str, LocalPath], Meta(max_length=100_000)]
    offered: Annotated[tuple[ModelId, ...], Meta(max_length=4)] = ()
    download: bool = True
    alias: Line | None = None
    output: LocalPath | None = None
    targets: Annotated[dict[str, LocalPath], Meta(max_length=100)] = {}
    models: dict[str, ModelId] = {}
    home: tuple[Line, ...] = ()
    state: Annotated[str, Meta(max_length=32)] = "unsent"

    @property
    def id(self) -> JobId:
        """The job's id."""
        return self.spec.id


class SubmittedJobs:
    """All of them.

    Args:
        root: The folder; made when the first job is submitted.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, job: SubmittedJob) -> None:
        """Keep a new job.

        Raises:
            OutOfSpace: The disk is full.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(self._path(job.id), encode_pretty(job))

    def update(self, job_id: str, change: Callable[[SubmittedJob], SubmittedJob]) -> SubmittedJob:
        """Change a job; of several processes that do so, each sees what those before it did.

        Raises:
            UnknownJob: There is none with this id.
            OutOfSpace: The disk is full.
        """
        with self._locked():
            old = self.get(job_id)
            changed = change(old)
            if changed != old:
                write_replacing(self._path(changed.id), encode_pretty(changed))
        return changed

    def get(self, name: str) -> SubmittedJob:
        """The job with this id, or the one whose id ends or begins so.

        Raises:
            UnknownJob: There is none.
            AmbiguousName: There are several.
            DataError: Its file is not readable.
        """
        return self._read(name if is_uuid7(name) else meant(name, self.ids()))

    def ids(self) -> list[JobId]:
        """The ids of all jobs, the oldest first."""
        try:
            stems = sorted(path.stem for path in self._root.glob("*.json"))
        except FileNotFoundError:
            return []
        return [JobId(stem) for stem in stems if is_uuid7(stem)]

    def all(self) -> list[SubmittedJob]:
        """All jobs that can be read, the newest first."""
        found = []
        for job_id in reversed(self.ids()):
            try:
                found.append(self._read(job_id))
            except (DataError, UnknownJob):
                continue
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only one who changes jobs, where the file system has locks."""
        with disk_errors(self._root / LOCK):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with contextlib.suppress(OSError):
                wait_for_lock(fd)
            yield
        finally:
            os.close(fd)

    def _path(self, job_id: str) -> Path:
        return self._root / f"{job_id}.json"

    def _read(self, job_id: str) -> SubmittedJob:
        path = self._path(job_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UnknownJob(name=job_id) from None
        return decode(SubmittedJob, data, what=str(path))


def meant(name: str, ids: Sequence[JobId]) -> JobId:
    """The id, among these, that ends or begins with what a person typed.

    Raises:
        UnknownJob: None does.
        AmbiguousName: Several do.
    """
    # The beginning of a UUIDv7 is its time: people are shown the end, which differs.
    fits = [i for i in ids if len(name) >= MIN_PREFIX and i.endswith(name)]
    fits = fits or [i for i in ids if len(name) >= MIN_PREFIX and i.startswith(name)]
    if not fits:
        near = difflib.get_close_matches(name[-8:], [short(job_id) for job_id in ids], n=3)
        raise UnknownJob(
            name=name[:80], hint=f"Did you mean {' or '.join(near)}?" if near else None
        )
    if len(fits) > 1:
        raise AmbiguousName(
            name=name,
            candidates=", ".join(fits),
            hint="Give more of the job's id.",
        )
    return fits[0]


def short(job_id: str) -> str:
    """What people are shown of a job's id: its last eight digits."""
    return job_id[-8:]
