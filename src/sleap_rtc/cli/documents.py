"""What ``--json`` prints, one shape per command; ``docs/reference/json.md`` shows each.

The shapes are promises: fields are added, never renamed or taken away. Sizes
are bytes, durations seconds, times UTC in ISO 8601, ids whole.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from sleap_rtc.domain.models import ModelRecord, Tier
from sleap_rtc.domain.places import Role
from sleap_rtc.domain.values import to_plain
from sleap_rtc.jobs.events import JobState
from sleap_rtc.library.entries import Entry


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is shown."""


class ErrorShown(Shown, frozen=True):
    """Why it didn't work.

    Attributes:
        code: Stable, for programs; docs/errors.md lists them.
        message: One sentence.
        hint: What to do, where there is something to say.
        exit_code: The process's.
    """

    code: str
    message: str
    hint: str
    exit_code: int


class FailedShown(Shown, frozen=True):
    """One of several things that were asked for, and why it failed; the others went on."""

    name: str
    error: ErrorShown


class ErrorDocument(Shown, frozen=True):
    """What any command prints that fails before it has a result."""

    error: ErrorShown


class LoginDocument(Shown, frozen=True):
    """``login``: where this device is signed in, under which key, and what it may."""

    server: str
    device: str
    may_create_rooms: bool


class RoomShown(Shown, frozen=True):
    """A room that this device is in.

    Attributes:
        room: Its id.
        name: What this device calls it.
        server: Its server's address.
        role: This device's role.
        expires_at: When this device's certificate ends; null once it has. An owner renews its own.
    """

    room: str
    name: str
    server: str
    role: Role
    expires_at: datetime | None


class RoomDocument(Shown, frozen=True):
    """``room join``."""

    room: RoomShown


class RoomCreatedDocument(Shown, frozen=True):
    """``room create``: the recovery code is a secret, and is shown this once."""

    room: RoomShown
    recovery_code: str


class RoomsDocument(Shown, frozen=True):
    """``room list``."""

    rooms: tuple[RoomShown, ...]


class InviteDocument(Shown, frozen=True):
    """``room invite``: whoever has the link can join, as often as ``uses`` and until it ends."""

    link: str
    room: str
    role: Role
    uses: int
    expires_at: datetime


class MemberShown(Shown, frozen=True):
    """A member of a room.

    Attributes:
        name: What it is called in the room.
        role: What it may do.
        device: Its key.
        expires_at: When its certificates end; an owner's device renews them before.
        seen_at: When it last entered the room.
        this_device: Whether it is this one.
    """

    name: str
    role: Role
    device: str
    expires_at: datetime
    seen_at: datetime
    this_device: bool


class MembersDocument(Shown, frozen=True):
    """``room members``."""

    room: str
    members: tuple[MemberShown, ...]


class MemberRemovedDocument(Shown, frozen=True):
    """``room remove``: who is no member any more."""

    room: str
    removed: MemberShown


class WorkerAcceptedDocument(Shown, frozen=True):
    """``workers --accept-new``: the worker's key from now on, and the one that it had before."""

    name: str
    room: str
    device: str
    before: str | None


class GpuShown(Shown, frozen=True):
    """A GPU: its model's name, and its memory."""

    name: str
    memory: int


class LoadShown(Shown, frozen=True):
    """How busy a machine is: percent of its processors, and of its busiest GPU if it has one."""

    cpu: float
    gpu: float | None


class WorkerShown(Shown, frozen=True):
    """A worker that is online.

    Attributes:
        name: Its name in the room.
        room: The room's name.
        device: Its key.
        version: Its sleap-rtc version.
        engines: Name → version.
        gpus: One each.
        cpus: Logical processors.
        ram: Bytes.
        disk_free: Bytes.
        platform: Operating system and architecture.
        jobs: At work or waiting.
        models: In its library.
        load: How busy it was a moment ago; null if it doesn't say.
    """

    name: str
    room: str
    device: str
    version: str
    engines: dict[str, str]
    gpus: tuple[GpuShown, ...]
    cpus: int
    ram: int
    disk_free: int
    platform: str
    jobs: int
    models: int
    load: LoadShown | None


class WorkersDocument(Shown, frozen=True):
    """``workers``."""

    workers: tuple[WorkerShown, ...]


class WorkerDocument(Shown, frozen=True):
    """``worker``: printed once it is online; it goes on until it is ended."""

    worker: WorkerShown


class ServerDocument(Shown, frozen=True):
    """``server``: printed once it answers; it goes on until it is ended.

    Attributes:
        url: Where devices reach it.
        port: Its TCP port.
        stun_port: Its UDP port, 0 for none.
        data_dir: Its folder.
        setup_code: For the first device; null when one has signed in before.
    """

    url: str
    port: int
    stun_port: int
    data_dir: str
    setup_code: str | None


class ServerCodeDocument(Shown, frozen=True):
    """``server-code``."""

    setup_code: str


class ModelShown(Shown, frozen=True):
    """A model of this machine's library.

    Attributes:
        id: Its id.
        alias: Its name, ``alias:type`` for a pair's member.
        name: The run's.
        model_type: The head.
        status: ``training``, ``completed``, ``interrupted``, ``failed``, ``imported``, ``missing``.
        local: Whether its files are here.
        locations: Workers and rooms that have it, as ``worker:gpu-1``.
        best_val_loss: The lowest validation loss.
        epochs: Whole epochs done.
        size: Bytes of its files here.
        created_at: When its record was made.
        path: Its directory here.
        package: Id of its content: the same id is the same content, wherever it is.
        tags: Sorted.
    """

    id: str
    alias: str | None
    name: str
    model_type: str
    status: str
    local: bool
    locations: tuple[str, ...]
    best_val_loss: float | None
    epochs: int | None
    size: int
    created_at: datetime
    path: str
    package: str | None
    tags: tuple[str, ...] = ()


class ModelsDocument(Shown, frozen=True):
    """``list-models``: ``more`` says how many the limit left out."""

    models: tuple[ModelShown, ...]
    more: int


class FileShown(Shown, frozen=True):
    """A model's file, and whether it is there and is the one that the record lists."""

    path: str
    size: int
    blake3: str
    state: Literal["ok", "missing", "changed"]


class SafetyShown(Shown, frozen=True):
    """How far a model's files may be trusted.

    Attributes:
        tier: That of its worst file.
        why: What was found; empty where nothing was.
        trusted: Whether a person said yes to it all the same.
    """

    tier: Tier
    why: str
    trusted: bool


class EpochShown(Shown, frozen=True):
    """The losses of one epoch, counted from 0; null where they weren't logged."""

    epoch: int
    train_loss: float | None
    val_loss: float | None


class ModelInfoShown(Shown, frozen=True):
    """Everything about one model.

    Attributes:
        model: As in lists.
        record: All that its record says, as docs/protocol.md describes it.
        files: Each file's state.
        verified: Whether the files were read and hashed; else their sizes were compared.
        commands: To paste: what for → command.
        safety: How far its files may be trusted; null where that isn't known.
        curve: The losses of its epochs, where its log is here.
    """

    model: ModelShown
    record: dict[str, Any]
    files: tuple[FileShown, ...]
    commands: dict[str, str]
    verified: bool = False
    safety: SafetyShown | None = None
    curve: tuple[EpochShown, ...] = ()


class ModelInfoDocument(Shown, frozen=True):
    """``model-info``: one model, or the two of a pair in the order in which they run."""

    models: tuple[ModelInfoShown, ...]


class WorkerModelsDocument(Shown, frozen=True):
    """``worker list-models``: as ``list-models``, of a worker's library.

    ``local`` says whether this machine has the same content, ``path`` is on the worker.
    """

    worker: str
    room: str
    models: tuple[ModelShown, ...]
    more: int


class WorkerModelInfoDocument(Shown, frozen=True):
    """``worker model-info``: as ``model-info``, of a worker's model.

    Attributes:
        worker: Its name.
        room: The room's.
        model: Everything; files were compared by size alone, and commands use this machine's copy.
        cut: Whether the record says more than one message could hold.
    """

    worker: str
    room: str
    model: ModelInfoShown
    cut: bool


class ComparedShown(Shown, frozen=True):
    """One line of a comparison.

    Attributes:
        group: ``model``, ``evaluation`` or ``hyperparameters``.
        name: What is compared.
        values: One of each model, in their order; null where it isn't known.
        differs: Whether they are not all the same.
        best: Numbers of the models with the best value, from 0; empty where none is better.
    """

    group: Literal["model", "evaluation", "hyperparameters"]
    name: str
    values: tuple[Any, ...]
    differs: bool
    best: tuple[int, ...]


class CompareDocument(Shown, frozen=True):
    """``compare-models``: every line, also those that don't differ; curves in the models' order."""

    models: tuple[ModelShown, ...]
    lines: tuple[ComparedShown, ...]
    curves: tuple[tuple[EpochShown, ...], ...]


class TagDocument(Shown, frozen=True):
    """``tag-model``: what an alias named before, and names now.

    Attributes:
        alias: The alias.
        before: Ids of the models that it named; empty where it was free.
        now: Ids of the models that it names; empty once it is removed.
        former: The alias that the model had until now, and has no more.
    """

    alias: str
    before: tuple[str, ...]
    now: tuple[str, ...]
    former: str | None


class AliasShown(Shown, frozen=True):
    """An alias: ids of the model or the pair that it names, and when it was set."""

    alias: str
    models: tuple[str, ...]
    changed_at: datetime


class AliasesDocument(Shown, frozen=True):
    """``list-aliases``."""

    aliases: tuple[AliasShown, ...]


class DeletedShown(Shown, frozen=True):
    """A model that was deleted.

    Attributes:
        id: Its id.
        alias: The alias that it had.
        size: Bytes of its files.
        trash: Where they are for 30 days; null where they stay.
        path: Its directory.
    """

    id: str
    alias: str | None
    size: int
    trash: str | None
    path: str


class DeletedDocument(Shown, frozen=True):
    """``delete-model``."""

    models: tuple[DeletedShown, ...]


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


class EngineShown(Shown, frozen=True):
    """An engine; ``version`` and ``python`` are null where it isn't installed."""

    name: str
    version: str | None
    python: str | None


class EnginesDocument(Shown, frozen=True):
    """``engine list``."""

    engines: tuple[EngineShown, ...]


class EngineDocument(Shown, frozen=True):
    """``engine install``."""

    engine: EngineShown


class CheckShown(Shown, frozen=True):
    """One thing that ``doctor`` looked at."""

    name: str
    status: Literal["ok", "note", "warning", "broken"]
    message: str
    hint: str


class DoctorDocument(Shown, frozen=True):
    """``doctor``: ``ok`` unless something is broken."""

    ok: bool
    checks: tuple[CheckShown, ...]


class TrustDocument(Shown, frozen=True):
    """``trust-model``: whether the file with this hash runs here, now and before."""

    blake3: str
    trusted: bool
    before: bool


DOCUMENTS: Final[dict[str, type[Shown]]] = {
    "compare-models": CompareDocument,
    "delete-model": DeletedDocument,
    "doctor": DoctorDocument,
    "engine-install": EngineDocument,
    "engine-list": EnginesDocument,
    "error": ErrorDocument,
    "jobs": JobsDocument,
    "jobs-command": CommandDocument,
    "jobs-logs": LogDocument,
    "jobs-show": JobDocument,
    "list-aliases": AliasesDocument,
    "list-models": ModelsDocument,
    "login": LoginDocument,
    "model-info": ModelInfoDocument,
    "room-create": RoomCreatedDocument,
    "room-invite": InviteDocument,
    "room-join": RoomDocument,
    "room-list": RoomsDocument,
    "room-members": MembersDocument,
    "room-remove": MemberRemovedDocument,
    "server": ServerDocument,
    "server-code": ServerCodeDocument,
    "tag-model": TagDocument,
    "track": TrackDocument,
    "train": TrainDocument,
    "trust-model": TrustDocument,
    "worker": WorkerDocument,
    "worker-list-models": WorkerModelsDocument,
    "worker-model-info": WorkerModelInfoDocument,
    "workers": WorkersDocument,
    "workers-accept-new": WorkerAcceptedDocument,
}
"""Name of the schema's file → the document."""


def model_shown(entry: Entry) -> ModelShown:
    """A model as lists show it."""
    record = entry.record
    return ModelShown(
        id=record.id,
        alias=entry.alias,
        name=record.name,
        model_type=record.model_type,
        status=record.status,
        local=is_local(record),
        locations=tuple(f"{at.kind}:{at.name}" for at in record.locations),
        best_val_loss=best_loss(record),
        epochs=record.metrics.epochs,
        size=record.size,
        created_at=record.created_at,
        path=str(entry.directory),
        package=record.package,
        tags=record.tags,
    )


def is_local(record: ModelRecord) -> bool:
    """Whether a model's files are on this machine."""
    return bool(record.files) and record.status != "missing"


def best_loss(record: ModelRecord) -> float | None:
    """The loss that models are compared by."""
    metrics = record.metrics
    return metrics.final_val_loss if metrics.best_val_loss is None else metrics.best_val_loss


def plain_record(record: ModelRecord) -> dict[str, Any]:
    """A record as its file has it."""
    return to_plain(record)
