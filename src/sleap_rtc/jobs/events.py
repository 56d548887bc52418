"""The numbered events of a job: its state is their fold, and they are what clients follow.

A log starts at number 1 and has no gaps. An event is saved before it is sent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from sleap_rtc.domain.models import Line, ModelRecord, Utc
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.domain.places import Load
from sleap_rtc.domain.values import Document, Value

JobState = Literal[
    "queued",
    "assigned",
    "preparing",
    "running",
    "paused",
    "finishing",
    "completed",
    "failed",
    "cancelled",
    "interrupted",
]
Command = Literal["pause", "resume", "stop", "cancel"]

Count = Annotated[int, Meta(ge=0)]


class StateChanged(Value, frozen=True, tag_field="kind", tag="state"):
    """The job is now in ``state``; ``reason`` is a sentence where there is one to say."""

    state: JobState
    reason: Annotated[str, Meta(max_length=8_000)] = ""


class ErrorTold(Value, frozen=True, tag_field="kind", tag="error"):
    """Why the job failed: a stable code, the sentence, a hint, the trainer's last lines."""

    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=8_000)]
    hint: Line = ""
    log_tail: Annotated[tuple[str, ...], Meta(max_length=100)] = ()


class Transferring(Value, frozen=True, tag_field="kind", tag="transfer"):
    """Bytes on the move for the job.

    Attributes:
        what: ``inputs`` or ``outputs``.
        done: Bytes that have arrived.
        total: Bytes of all.
        rate: Bytes per second.
        eta_s: Seconds until all have arrived, None while that can't be told.
        way: The type of its files, as ``jobs/datasets.py`` has them, where they come from: most
            of them, if from several places.
    """

    what: Literal["inputs", "outputs"]
    done: Count
    total: Count
    rate: Annotated[float, Meta(ge=0)] = 0.0
    eta_s: float | None = None
    way: Annotated[str, Meta(max_length=16)] = "webrtc"


class StageStarted(Value, frozen=True, tag_field="kind", tag="stage"):
    """The engine starts on stage ``stage`` (from 0 of ``stages``); epochs and steps as planned."""

    stage: Count
    stages: Count
    name: Line
    epochs: Count | None = None
    first_epoch: Count = 0


class Progress(Value, frozen=True, tag_field="kind", tag="progress"):
    """Within an epoch, or within a video: at most four a second are logged.

    Attributes:
        stage: From 0.
        epoch: From 0; None when tracking.
        done: Batches of this epoch, or frames of this video.
        total: Of how many, None when unknown.
        loss: The batch's loss.
        rate: Batches or frames per second.
        eta_s: Seconds until the stage ends.
        load: How busy the worker's machine is.
    """

    stage: Count
    done: Count
    epoch: Count | None = None
    total: Count | None = None
    loss: float | None = None
    rate: float | None = None
    eta_s: float | None = None
    load: Load | None = None


class EpochEnded(Value, frozen=True, tag_field="kind", tag="epoch"):
    """A whole epoch: its mean losses, learning rate and seconds."""

    stage: Count
    epoch: Count
    train_loss: float | None = None
    val_loss: float | None = None
    learning_rate: float | None = None
    duration_s: float | None = None
    eta_s: float | None = None


class Logged(Value, frozen=True, tag_field="kind", tag="log"):
    """A line that the trainer wrote."""

    line: Annotated[str, Meta(max_length=4_000)]


class CommandReceived(Value, frozen=True, tag_field="kind", tag="command"):
    """Somebody commanded the job; ``id`` makes a repeated request the same request."""

    id: Annotated[str, Meta(max_length=64)]
    command: Command
    by: Annotated[str, Meta(max_length=128)] = ""


class ModelChanged(Value, frozen=True, tag_field="kind", tag="model"):
    """The record of the model that stage ``stage`` trains, as it now stands on the worker."""

    stage: Count
    record: ModelRecord


class OutputReady(Value, frozen=True, tag_field="kind", tag="output"):
    """Something to bring home: ``model`` of a stage, or ``predictions``."""

    what: Literal["model", "predictions"]
    package: PackageRef
    stage: Count = 0
    about: dict[str, Any] = {}


Body = (
    StateChanged
    | ErrorTold
    | Transferring
    | StageStarted
    | Progress
    | EpochEnded
    | Logged
    | CommandReceived
    | ModelChanged
    | OutputReady
)


class JobEvent(Document, frozen=True):
    """One event of a job's log.

    Attributes:
        n: Its number, from 1, without gaps.
        at: When, by the worker's clock, UTC.
        body: What happened.
    """

    n: Annotated[int, Meta(ge=1)]
    at: Utc
    body: Body
