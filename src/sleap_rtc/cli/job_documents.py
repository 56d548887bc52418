"""What ``--json`` prints of ``train``, ``track`` and ``jobs``; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sleap_rtc.cli.documents import ErrorShown, Shown
from sleap_rtc.cli.model_documents import ModelShown
from sleap_rtc.jobs.events import JobState


class TrainDocument(Shown, frozen=True):
    """``train``, and ``jobs attach`` of a training.

    Attributes:
        job: The job's id.
        state: Where it stands; not settled after ``--detach``.
        reason: The sentence that came with the state.
        worker: Where it runs.
        room: The room's name.
        models: In the order of the configurations.
        error: Why it failed.
    """

    job: str
    state: JobState | Literal["unsent"]
    reason: str
    worker: str
    room: str
    models: tuple[ModelShown, ...]
    error: ErrorShown | None


class PredictionsShown(Shown, frozen=True):
    """The predictions of one video."""

    video: str
    predictions: str


class UsedModelShown(Shown, frozen=True):
    """A model that tracked: ``package`` is the id of its content."""

    id: str
    alias: str | None
    model_type: str
    package: str


class TrackDocument(Shown, frozen=True):
    """``track``, and ``jobs attach`` of a tracking.

    Attributes:
        models: What tracked.
        predictions: One per video, in the order in which they were named.
        job: The job's id; null where it ran here.
        worker: Where it ran; null for here.
        state: Where it stands.
        error: Why it failed.
    """

    models: tuple[UsedModelShown, ...]
    predictions: tuple[PredictionsShown, ...]
    job: str | None
    worker: str | None
    state: JobState | Literal["unsent"]
    error: ErrorShown | None


class JobShown(Shown, frozen=True):
    """One line about a job.

    Attributes:
        id: Its id.
        name: The label file's or the first video's.
        kind: ``train`` or ``track``.
        engine: The trainer.
        state: Where it stands, or stood when it was last seen.
        current: Whether the worker has just said so.
        worker: Where it is.
        room: The room's name, or its id where this device has left it.
        submitted_at: When.
        mine: Whether this device submitted it.
    """

    id: str
    name: str
    kind: Literal["train", "track"]
    engine: str
    state: JobState | Literal["unsent"]
    current: bool
    worker: str
    room: str
    submitted_at: datetime
    mine: bool


class JobsDocument(Shown, frozen=True):
    """``jobs``."""

    jobs: tuple[JobShown, ...]


class StageShown(Shown, frozen=True):
    """A model in training, or a video: its progress so far."""

    name: str
    epochs: int | None
    epochs_done: int
    train_loss: float | None
    val_loss: float | None
    best_val_loss: float | None
    model: str | None


class JobDocument(Shown, frozen=True):
    """``jobs show``."""

    job: JobShown
    reason: str
    stages: tuple[StageShown, ...]
    eta_s: float | None
    home: tuple[str, ...]
    error: ErrorShown | None


class CommandDocument(Shown, frozen=True):
    """``jobs stop``, ``cancel``, ``pause``, ``resume``, ``retry``: the worker has noted it."""

    job: str
    command: Literal["stop", "cancel", "pause", "resume", "retry"]


class LogDocument(Shown, frozen=True):
    """``jobs logs``: what the trainer wrote so far."""

    job: str
    lines: tuple[str, ...]


JOBS: Final[dict[str, type[Shown]]] = {
    "jobs": JobsDocument,
    "jobs-command": CommandDocument,
    "jobs-logs": LogDocument,
    "jobs-show": JobDocument,
    "track": TrackDocument,
    "train": TrainDocument,
}
"""Name of the schema's file → the document."""
