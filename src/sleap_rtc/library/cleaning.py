"""What a library doesn't need, by kind, with its size; and removing what was chosen of it.

================  ======================================  =============================
kind              what                                    removed by
================  ======================================  =============================
partial           transfers that were cut, older than     deleting them
                  a day, and that nobody works on
abandoned         models that were being put together,    deleting them
                  older than a day
trash             what was deleted more than 30 days ago  deleting it
records           models whose files are nowhere: not     a deleted record, kept for
                  here, and no other place is known       30 days
broken-links      models imported by link of which        a deleted record, kept for
                  nothing is there; their drive may be    30 days
                  unplugged
files             directories in a model's form without   moving them to the trash,
                  a record                                for 30 days
================  ======================================  =============================

The last two are only removed when they are asked for by name. Nothing that isn't
the library's is ever touched: no link is followed, a directory under another
name is not looked at, and a file that a model links to stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
from loguru import logger

from sleap_rtc.domain.ids import ModelId
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, SleapRtcError, UnknownModel
from sleap_rtc.files.claim import LOCK, Claim
from sleap_rtc.files.durable import disk_errors, sync_directory
from sleap_rtc.files.locking import try_lock
from sleap_rtc.library import deleting, layout, records
from sleap_rtc.library.checking import looks_like
from sleap_rtc.library.marks import changing
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.telling import Told, counted, unseen

Kind = Literal["partial", "abandoned", "trash", "records", "broken-links", "files"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
BY_NAME: Final[frozenset[Kind]] = frozenset({"broken-links", "files"})
"""Kinds that may be somebody's, so that they are removed only when they are named."""
ABANDONED_S: Final = 86_400.0
"""Seconds after which what nobody works on counts as abandoned."""
_PARTIAL: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{16}")
_ALIVE: Final = frozenset({"training", "interrupted", "failed"})
"""What these say is of use without any file."""

MAX_MEASURED: Final = 1_000_000
"""Files that are counted of one thing, so that measuring has an end."""


class Found(msgspec.Struct, frozen=True):
    """Something that isn't needed.

    Attributes:
        kind: What it is.
        path: Where it is.
        size: Bytes that removing it gives back; 0 for a record alone.
        what: One phrase.
        model: The model, for records.
        label: What people call it; empty where it is no model.
    """

    kind: Kind
    path: Path
    size: int
    what: str
    model: ModelId | None = None
    label: str = ""


class Removed(msgspec.Struct, frozen=True):
    """What became of something that was chosen.

    Attributes:
        found: What it was.
        why: Why it stays, empty where it was removed.
        trash: Where it is for 30 days, None where it is gone.
    """

    found: Found
    why: str = ""
    trash: Path | None = None


def look(
    registry: Registry,
    incoming: Iterable[Path] = (),
    *,
    now: datetime,
    told: Told = unseen,
) -> list[Found]:
    """Find what a library doesn't need; nothing is changed.

    Args:
        registry: The library.
        incoming: Folders of partial transfers besides the library's own.
        now: The time, UTC.
        told: Told how far it is.
    """
    found: list[Found] = []
    models = registry.models_dir
    found += _unfinished(models / layout.INCOMING, now, own=True)
    for folder in incoming:
        found += _unfinished(folder, now, own=False)
    found += _old_trash(models, now)
    found += _models(registry, now, told)
    return sorted(found, key=lambda one: KINDS.index(one.kind))


def remove(
    registry: Registry,
    chosen: Sequence[Found],
    *,
    now: datetime,
    on_each: Callable[[Found], None] = lambda _: None,
) -> list[Removed]:
    """Remove things that :func:`look` found; each is looked at again first.

    Args:
        registry: The library.
        chosen: What to remove.
        now: The time, UTC.
        on_each: Called before each.
    """
    done = []
    for one in chosen:
        on_each(one)
        try:
            done.append(_remove(registry, one, now))
        except (SleapRtcError, OSError) as error:
            done.append(Removed(found=one, why=str(error)))
        logger.bind(kind=one.kind, path=str(one.path), why=done[-1].why).info("cleaned")
    return done


# ── finding ──────────────────────────────────────────────────────────────────


def _unfinished(folder: Path, now: datetime, *, own: bool) -> Iterator[Found]:
    for path in _folders(folder):
        partial = _PARTIAL.fullmatch(path.name) is not None
        if not (partial or own):
            continue
        survey = measure(path)
        if survey.age_s(now) < ABANDONED_S or (partial and _is_claimed(path)):
            continue
        what = "a transfer that was cut" if partial else "a model that was never finished"
        yield Found(
            kind="partial" if partial else "abandoned", path=path, size=survey.size, what=what
        )


def _is_claimed(path: Path) -> bool:
    """Whether somebody works there; asking changes nothing, not even a time."""
    try:
        fd = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # who may not look may not remove either
    try:
        return try_lock(fd) == "taken"
    except OSError:
        return False
    finally:
        os.close(fd)


def _old_trash(models: Path, now: datetime) -> Iterator[Found]:
    oldest = deleting.due(now)
    for path in _folders(models / layout.TRASH):
        if deleting.is_old_trash(path.name, oldest):
            yield Found(
                kind="trash",
                path=path,
                size=measure(path).size,
                what=f"deleted more than {deleting.TOMBSTONE_DAYS} days ago",
            )


def _models(registry: Registry, now: datetime, told: Told) -> Iterator[Found]:
    """What is to be said of the directories of models, each of which is looked at once."""
    models, oldest = registry.models_dir, deleting.due(now)
    kept = deleting.in_trash(models, since=oldest)
    names = sorted(layout.names(models))
    for name in counted(names, len(names), told):
        directory = models / name
        if not os.path.lexists(directory / layout.RECORD):
            yield from _without_record(directory, now)
            continue
        with contextlib.suppress(UnknownModel, DataError, OSError):
            record = records.read(directory).record
            if record.deleted_at is None:
                yield from _without_files(registry, directory, record)
            elif record.deleted_at < oldest and name not in kept:
                path = directory / layout.RECORD
                size, what = measure(path).size, "the record of a deletion"
                yield Found(kind="trash", path=path, size=size, what=what)


def _without_record(directory: Path, now: datetime) -> Iterator[Found]:
    # A directory of which the record is just being made is young.
    survey = measure(directory)
    if survey.age_s(now) >= ABANDONED_S:
        what = "no library knows it; sleap-rtc import-model takes it in"
        yield Found(kind="files", path=directory, size=survey.size, what=what)


def _without_files(registry: Registry, directory: Path, record: ModelRecord) -> Iterator[Found]:
    if record.status in _ALIVE or record.locations:
        return
    if any(looks_like(directory, file) != "missing" for file in record.files):
        return
    linked = any(file.link is not None for file in record.files)
    why = "what it links to is gone" if linked else "its files are nowhere"
    label = registry.get(record.id).label
    yield Found(
        kind="broken-links" if linked else "records",
        path=directory,
        size=0,
        what=f"{label}: {why}",
        model=record.id,
        label=label,
    )


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in one of the library's own folders, which isn't itself a link."""
    if folder.is_symlink():
        return
    for name in sorted(layout.listing(folder)):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            yield path


class Survey(msgspec.Struct, frozen=True):
    """What is below a path.

    Attributes:
        size: Bytes on the disk.
        newest: When anything was last changed there, seconds since 1970.
    """

    size: int
    newest: float

    def age_s(self, now: datetime) -> float:
        """Seconds since anything was changed."""
        return now.timestamp() - self.newest


def measure(path: Path) -> Survey:
    """Look at everything below a path; links count as links."""
    newest = 0.0
    with contextlib.suppress(OSError):
        newest = path.stat(follow_symlinks=False).st_mtime
    size = counted = 0
    level = [path]
    while level and counted < MAX_MEASURED:
        with contextlib.suppress(OSError), os.scandir(level.pop()) as entries:
            for entry in entries:
                counted += 1
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    newest = max(newest, found.st_mtime)
                    if stat.S_ISDIR(found.st_mode):
                        level.append(Path(entry.path))
                    else:
                        size += found.st_blocks * 512
    return Survey(size=size, newest=newest)


# ── removing ─────────────────────────────────────────────────────────────────


def _remove(registry: Registry, one: Found, now: datetime) -> Removed:
    if one.model is not None:
        return _forget(registry, one)
    if one.path.is_symlink() or not one.path.is_dir():
        return Removed(found=one, why="it is not there any more")
    unfinished = one.kind in ("partial", "abandoned")
    if unfinished and measure(one.path).age_s(now) < ABANDONED_S:
        return Removed(found=one, why="somebody works there again")
    match one.kind:
        case "partial":
            with Claim(one.path, what=str(one.path)) as claim:
                claim.remove()
        case "files":
            return _to_trash(registry, one)
        case "trash" if one.path.name == layout.RECORD:
            directory = one.path.parent
            with changing(registry.models_dir, [directory.name]):
                deleted = records.read(directory).record.deleted_at
                due = deleting.due(now)
                old = deleted is not None and deleted < due
                if not (old and registry.claims.drop_record(directory, before=due)):
                    return Removed(found=one, why="the model is there again")
        case "trash":
            deleting.purge(one.path)
        case _:
            shutil.rmtree(one.path)
    return Removed(found=one)


def _forget(registry: Registry, one: Found) -> Removed:
    assert one.model is not None  # noqa: S101 - the caller looked
    entry = registry.get(one.model)
    record = entry.record
    here = any(looks_like(entry.directory, file) != "missing" for file in record.files)
    if here or record.locations:
        return Removed(found=one, why="its files are there again")
    trash = registry.delete(one.model)  # links of ours that lead nowhere go with it
    return Removed(found=one, trash=trash)


def _to_trash(registry: Registry, one: Found) -> Removed:
    if os.path.lexists(one.path / layout.RECORD):
        return Removed(found=one, why="it has a record now")
    trash = registry.claims.trash(one.path.name)
    with disk_errors(trash):
        trash.parent.mkdir(parents=True, exist_ok=True)
        one.path.rename(trash)
        sync_directory(trash.parent)
        sync_directory(one.path.parent)
    return Removed(found=one, trash=trash)
