"""What ``--json`` prints of a library, this machine's or a worker's; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from sleap_rtc.cli.documents import FailedShown, Shown
from sleap_rtc.domain.models import ModelRecord, Tier, safety_of
from sleap_rtc.domain.values import to_plain
from sleap_rtc.library.entries import Entry


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
        safety: How far its files may be trusted; null where it has none here, and of workers.
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
    safety: Tier | None = None


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

    ``local`` says whether this machine has the same content, ``path`` is on the worker;
    ``as_of`` when that was so, if nobody could be asked (offline), null for now.
    """

    worker: str
    room: str
    models: tuple[ModelShown, ...]
    more: int
    as_of: datetime | None


class WorkerModelInfoDocument(Shown, frozen=True):
    """``worker model-info``: as ``model-info``, of a worker's model.

    Attributes:
        worker: Its name.
        room: The room's.
        model: Everything; files were compared by size alone, and commands use this machine's copy.
        cut: Whether the record says more than one message could hold.
        as_of: When that was so, if nobody could be asked (offline); null for now.
    """

    worker: str
    room: str
    model: ModelInfoShown
    cut: bool
    as_of: datetime | None


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
    """``delete-model``: the models that were deleted, and what failed."""

    models: tuple[DeletedShown, ...]
    failed: tuple[FailedShown, ...]


MODELS: Final[dict[str, type[Shown]]] = {
    "compare-models": CompareDocument,
    "delete-model": DeletedDocument,
    "list-aliases": AliasesDocument,
    "list-models": ModelsDocument,
    "model-info": ModelInfoDocument,
    "tag-model": TagDocument,
    "worker-list-models": WorkerModelsDocument,
    "worker-model-info": WorkerModelInfoDocument,
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
        safety=safety_of(record).tier if record.files else None,
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
