"""What ``--json`` prints of the commands that look after the library; see ``documents.py``."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from sleap_rtc.cli.documents import FailedShown, Shown
from sleap_rtc.domain.models import Status


class SyncStepShown(Shown, frozen=True):
    """What comparing did with one model.

    Attributes:
        change: ``updated``, ``added``, ``missing``, ``deleted`` (here, and stays so), ``refused``.
        id: Its id here; there, where it has none here.
        label: What it is called.
        model_type: The head.
        why: What there is to say.
    """

    change: Literal["updated", "added", "missing", "deleted", "refused"]
    id: str
    label: str
    model_type: str
    why: str


class SyncedShown(Shown, frozen=True):
    """A worker that was compared with; ``more`` of its models were too many to be looked at."""

    worker: str
    same: int
    more: int
    steps: tuple[SyncStepShown, ...]


class UnreachedShown(Shown, frozen=True):
    """A worker that could not be asked; ``last_seen`` is when a model of it was last seen there."""

    worker: str
    why: str
    last_seen: datetime | None


class SyncDocument(Shown, frozen=True):
    """``sync``."""

    room: str
    workers: tuple[SyncedShown, ...]
    unreached: tuple[UnreachedShown, ...]


class RepairedFileShown(Shown, frozen=True):
    """A file that wasn't the one that the record lists.

    Attributes:
        path: In the model.
        was: ``missing``, ``changed`` (another content), or ``broken-link`` (imported by link, and
            what it led to is gone).
        now: ``ok``, or as it was.
        source: Where the right content came from: a path, or ``worker:gpu-1``; null where it did
            not.
    """

    path: str
    was: Literal["missing", "changed", "broken-link"]
    now: Literal["ok", "missing", "changed", "broken-link"]
    source: str | None


class RepairedShown(Shown, frozen=True):
    """A model that was looked at, and mended as far as that was possible.

    Attributes:
        id: The model's id.
        alias: Its alias.
        whole: Whether everything is as its record lists it now.
        record: Whether damaged revisions of the record were moved aside.
        aliases: Second aliases of its own, which were removed.
        files: Those with a fault.
    """

    id: str
    alias: str | None
    whole: bool
    record: Literal["good", "mended"]
    aliases: tuple[str, ...]
    files: tuple[RepairedFileShown, ...]


class RepairDocument(Shown, frozen=True):
    """``repair-model``: every model that was looked at, and what failed, of those too."""

    models: tuple[RepairedShown, ...]
    failed: tuple[FailedShown, ...]


class CleanedShown(Shown, frozen=True):
    """Something that the library doesn't need.

    Attributes:
        kind: ``partial`` (transfers that were cut), ``abandoned`` (models that were never
            finished), ``trash`` (deleted more than 30 days ago), ``records`` (models whose files
            are nowhere), ``broken-links`` (models that link to files that are gone, or on a drive
            that isn't there), ``files`` (directories that no library knows).
        path: Where it is.
        size: Bytes that removing it gives back.
        what: One phrase.
        removed: Whether it was removed.
        trash: Where it is for 30 days; null where it is gone, or stays.
        why: Why it stays, where it was chosen and stays.
    """

    kind: Literal["partial", "abandoned", "trash", "records", "broken-links", "files"]
    path: str
    size: int
    what: str
    removed: bool
    trash: str | None
    why: str


class CleanDocument(Shown, frozen=True):
    """``clean-models``: everything that was found; ``freed`` are the bytes given back."""

    found: tuple[CleanedShown, ...]
    freed: int


class WordsShown(Shown, frozen=True):
    """What people wrote of a model."""

    notes: str
    tags: tuple[str, ...]


class UpdatedShown(Shown, frozen=True):
    """A model, what was written of it before, and what is now."""

    model: str
    alias: str | None
    before: WordsShown
    now: WordsShown


class UpdateDocument(Shown, frozen=True):
    """``update-model``: the models that were changed, and what failed."""

    models: tuple[UpdatedShown, ...]
    failed: tuple[FailedShown, ...]


class DeletedModelShown(Shown, frozen=True):
    """A deleted model that can be brought back.

    Attributes:
        id: Its id.
        aliases: What it was called, by itself or in a pair.
        model_type: The head.
        files: ``trash``; ``kept``, where they were; ``nowhere`` on this machine.
        size: Bytes of its files, without those that it links to.
        deleted_at: When it was deleted; null for one that a crash left in the trash.
        until: When it is swept away.
    """

    id: str
    aliases: tuple[str, ...]
    model_type: str
    files: Literal["trash", "kept", "nowhere"]
    size: int
    deleted_at: datetime | None
    until: datetime | None


class DeletedModelsDocument(Shown, frozen=True):
    """``list-models --deleted``: the model that was deleted last comes first."""

    models: tuple[DeletedModelShown, ...]


class RestoredModelShown(Shown, frozen=True):
    """A model that came back.

    Attributes:
        id: Its id.
        alias: Its alias, if it has it again.
        status: ``missing`` where files of it are gone, else what it was.
        size: Bytes of its files.
        path: Its directory.
        lacking: Paths of files that aren't as its record lists them.
    """

    id: str
    alias: str | None
    status: Status
    size: int
    path: str
    lacking: tuple[str, ...]


class RestoredModelsDocument(Shown, frozen=True):
    """``restore-model``.

    Attributes:
        models: Those that came back.
        not_named: A sentence for each former alias that was not given back.
        failed: What could not be brought back.
    """

    models: tuple[RestoredModelShown, ...]
    not_named: tuple[str, ...]
    failed: tuple[FailedShown, ...]


CARE: Final[dict[str, type[Shown]]] = {
    "clean-models": CleanDocument,
    "list-models-deleted": DeletedModelsDocument,
    "repair-model": RepairDocument,
    "restore-model": RestoredModelsDocument,
    "sync": SyncDocument,
    "update-model": UpdateDocument,
}
"""Name of the schema's file → the document."""
