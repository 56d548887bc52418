"""Deleting a model, and what is swept away 30 days later.

A deleted model's record is a revision that says so, by which every process, and
every other host on a shared home, knows; its files lie in the trash meanwhile.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, UnknownModel
from sleap_rtc.files.durable import TEMPORARY
from sleap_rtc.library import layout, placing, records
from sleap_rtc.library.claiming import STAMP, TRASHED, Claims
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Finder
from sleap_rtc.library.marks import changing

TOMBSTONE_DAYS: Final = 30
"""Days that a deleted model's record and files are kept."""

KEPT: Final = timedelta(days=TOMBSTONE_DAYS)

_ABANDONED_S: Final = 86_400.0


def delete(finder: Finder, entry: Entry, *, trash: Path | None, now: datetime) -> None:
    """Delete a model, its aliases first of all others.

    Args:
        finder: Of its library.
        entry: The model.
        trash: Where its files go; None leaves them where they are.
        now: The time, UTC.

    Raises:
        OutOfSpace: The disk is full; either nothing happened, or the same call goes on.
    """
    with changing(finder.models, [entry.directory.name]):
        revision = records.update(
            entry.directory,
            # That its files go is part of the record: whoever finds them still there finishes.
            lambda old: replace(
                old,
                deleted_at=max(now, *_moments(old)),
                status=old.status if trash is None else "missing",
            ),
        )
        removed = []
        if not finder.is_alive(entry.id):  # else it came back just now, and keeps its name
            removed = finder.aliases.remove_from(revision.record, revision.hints)
        if trash is not None:
            _empty(entry.directory, trash)
    logger.bind(model=entry.id, aliases=[alias.name for alias in removed]).info(
        "a model was deleted"
    )


def _moments(record: ModelRecord) -> Iterator[datetime]:
    """When a model is known to have been there.

    A delete isn't dated before that, so that a clock that was set back doesn't let the record be
    swept away early, once it goes right again.
    """
    for moment in (record.created_at, record.completed_at, record.downloaded_at):
        if moment is not None:
            yield moment


def finish(directory: Path, trash: Path) -> None:
    """Finish a delete that was cut short: what its files are goes to the trash.

    Args:
        directory: A deleted model's.
        trash: Where its files go.
    """
    with contextlib.suppress(FileNotFoundError):
        if any(item.name != layout.RECORD for item in directory.iterdir()):
            _empty(directory, trash)


def _empty(directory: Path, trash: Path) -> None:
    """Move a deleted model's files to the trash, unless the model came back meanwhile."""

    def still() -> bool:
        with contextlib.suppress(UnknownModel, DataError):
            record = records.read(directory).record
            return record.deleted_at is not None and record.status == "missing"
        return False

    placing.move_out(directory, trash, keep=lambda name: name == layout.RECORD, still=still)


def sweep(claims: Claims, models: Path, tombstones: Iterable[str], oldest: datetime) -> int:
    """Remove what was deleted before a time, and what was abandoned for a day.

    Args:
        claims: Of the library.
        models: The library.
        tombstones: Directories of deleted models.
        oldest: What was deleted earlier goes, UTC.

    Returns:
        Number of models and folders that were removed.
    """
    removed = 0
    kept = in_trash(models, since=oldest)
    for name in tombstones:
        if name in kept:  # its files can still be brought back
            continue
        directory = models / name
        with contextlib.suppress(UnknownModel, DataError), changing(models, [name]):
            deleted = records.read(directory).record.deleted_at
            if deleted is not None and deleted < oldest:
                removed += claims.drop_record(directory, before=oldest)
    for folder in _entries(models / layout.TRASH):
        if folder.name.startswith(TEMPORARY):  # a sweep was cut short
            shutil.rmtree(folder, ignore_errors=True)
        elif is_old_trash(folder.name, oldest):
            removed += purge(folder)
    for folder in _entries(models / layout.INCOMING):
        age = time.time() - folder.stat().st_mtime
        if folder.name.startswith(TEMPORARY) and age > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)
    return removed


def purge(folder: Path) -> bool:
    """Remove a folder of the trash for good.

    It loses its name first, by one rename: whoever would bring back what is in it at this moment
    gets all of it, or nothing.

    Returns:
        False when somebody else was quicker.
    """
    doomed = folder.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return False
    shutil.rmtree(doomed)
    return True


def is_old_trash(name: str, oldest: datetime) -> bool:
    """Whether a folder in the trash is of before a time, by its name."""
    match = TRASHED.fullmatch(name)
    return match is not None and match[1] < oldest.astimezone(UTC).strftime(STAMP)


def model_in_trash(name: str) -> str | None:
    """Name of the directory of which a folder in the trash was; None for what is no such folder."""
    match = TRASHED.fullmatch(name)
    return None if match is None else match[2]


def in_trash(models: Path, *, since: datetime) -> set[str]:
    """Names of the directories of which something went to the trash since a time."""
    names = layout.listing(models / layout.TRASH)
    return {model_in_trash(name) or "" for name in names if not is_old_trash(name, since)}


def due(now: datetime) -> datetime:
    """What was deleted before this may go."""
    return now - KEPT


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
