"""Bringing a deleted model back: its record, its files, and its alias if that is free.

==========================  ======================================================
what is left                how it comes back
==========================  ======================================================
files in the trash          their folder gets the record and is placed by one rename
files in several folders    they are moved into one folder of the trash, then so
files that were kept        the record of the directory says again what it said
no files                    the record alone; what lacks, ``repair-model`` looks for
==========================  ======================================================

At every step the files are in the trash or in the model, so whatever cuts it
short, the same call goes on. A model whose record is in the trash as well (a
process died while one made way for another) is found there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.ids import ModelId, is_id_prefix, is_model_id
from sleap_rtc.domain.models import ModelFile, ModelRecord, Status
from sleap_rtc.errors import (
    AmbiguousName,
    DataError,
    NotFound,
    SleapRtcError,
    UnknownModel,
)
from sleap_rtc.files.durable import disk_errors, sync_directory
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library import chain, deleting, layout
from sleap_rtc.library.checking import content_is, looks_like, place_of
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry

Where = Literal["trash", "kept", "nowhere"]

_SHOWN: Final = 10
_LATEST: Final = datetime.max.replace(tzinfo=UTC) - deleting.KEPT
"""Others may say of a model that it was made in any year, and it was deleted after that."""


class Deleted(msgspec.Struct, frozen=True):
    """A model that was deleted.

    Attributes:
        record: As it was, with the time of its deletion.
        aliases: What it was called, by itself or in a pair, with the models in order.
        where: Where its files are: in the trash, in the directory in which they were kept, or
            nowhere here (also when it had none).
        size: Bytes of the library's own files that are there.
        directory: Name of its directory.
        folders: Its folders in the trash, the newest first.
    """

    record: ModelRecord
    aliases: tuple[tuple[str, tuple[ModelId, ...]], ...]
    where: Where
    size: int
    directory: str
    folders: tuple[Path, ...]

    @property
    def label(self) -> str:
        """What a person calls it."""
        return f"{self.record.id} ({self.aliases[0][0]})" if self.aliases else self.record.id

    @property
    def until(self) -> datetime | None:
        """When it is swept away, UTC."""
        deleted = self.record.deleted_at
        return None if deleted is None else min(deleted, _LATEST) + deleting.KEPT


class Restored(msgspec.Struct, frozen=True):
    """A model that came back.

    Attributes:
        entry: As it is now.
        lacking: Paths of files that are not as its record lists them.
    """

    entry: Entry
    lacking: tuple[str, ...]


def deleted(registry: Registry) -> list[Deleted]:
    """Every model that can be brought back, the one that was deleted last first."""
    return _among(registry, lambda _: True)


def _among(registry: Registry, wanted: Callable[[ModelId], bool]) -> list[Deleted]:
    """Those with a wanted id; records of others aren't read."""
    folders = _folders(registry.models_dir)
    found = []
    for name in {*registry.tombstones(), *folders}:
        parsed = layout.parse(name)
        if parsed is not None and wanted(parsed[1]):
            one = _deleted(registry, name, folders.get(name, []))
            if one is not None:
                found.append(one)
    return sorted(found, key=_when, reverse=True)


def find(registry: Registry, name: str) -> tuple[Deleted, ...]:
    """The deleted model that a person means: by id, former alias, or beginning of an id.

    Of several that had the alias it is the one that was deleted last; both, of a pair.

    Raises:
        UnknownModel: No deleted model is called so.
        AmbiguousName: A beginning fits several.
    """
    known = _among(registry, lambda model: model == name) if is_model_id(name) else []
    if known:
        return (known[0],)
    there = deleted(registry)
    named: dict[str, tuple[ModelId, ...]] = {}
    for one in there:
        for alias, ids in one.aliases:
            named.setdefault(alias, ids)
    alias, _, member = name.partition(":")
    found = tuple(
        one
        for one in there
        if one.record.id in named.get(alias, ()) and member in ("", one.record.model_type)
    )
    if found:
        return found
    fitting = [one for one in there if is_id_prefix(name) and one.record.id.startswith(name)]
    if len(fitting) > 1:
        more = f" and {len(fitting) - _SHOWN} more" if len(fitting) > _SHOWN else ""
        labels = ", ".join(one.label for one in fitting[:_SHOWN])
        raise AmbiguousName(name=name, candidates=labels + more)
    if fitting:
        return (fitting[0],)
    if registry.exists(name):
        raise UnknownModel(name=name, hint="It isn't deleted: there is nothing to bring back.")
    raise UnknownModel(
        name=name, hint="sleap-rtc list-models --deleted shows what can be brought back."
    )


def restore(registry: Registry, one: Deleted, cache: HashCache) -> Restored:
    """Bring a deleted model back; its alias is given by :func:`name_again`.

    Args:
        registry: The library.
        one: From :func:`deleted`, or :func:`find`.
        cache: Hashes of unchanged files, for the case that several folders hold one.

    Raises:
        NotFound: Its files were swept away at this moment, or somebody else brought it back.
        OutOfSpace: The disk is full; what was in the trash is there still.
        PathNotPermitted: The library can't be written to.
    """
    models = registry.models_dir
    record = one.record
    if one.where == "kept":
        entry = _revived(registry, record)
    else:
        deleting.finish(models / one.directory, registry.claims.trash(one.directory))
        folders = _folders(models).get(one.directory, [])
        try:
            assembled = _assembled(registry, record, folders, cache)
        except FileNotFoundError as error:
            raise _gone(record) from error
        if assembled is None and one.where == "trash":
            raise _gone(record)
        entry = _placed(registry, record, assembled)
    lacking = _lacking(entry.directory, entry.record)
    logger.bind(model=entry.id, lacking=len(lacking)).info("a deleted model was brought back")
    return Restored(entry=entry, lacking=lacking)


def name_again(
    registry: Registry, restored: Sequence[tuple[Deleted, Entry]]
) -> tuple[list[str], list[str]]:
    """Give models that came back the names that they had, as far as these are free.

    Args:
        registry: The library.
        restored: What they were, and what they are.

    Returns:
        The aliases that were given, and a sentence for each that was not.
    """
    now = {one.record.id: entry.id for one, entry in restored}
    wanted = {alias: ids for one, _ in reversed(restored) for alias, ids in one.aliases}
    given, refused = [], []
    for alias, ids in wanted.items():
        models = [now.get(model, model) for model in ids]
        lacking = [model for model in models if not registry.exists(model)]
        if lacking:
            refused.append(f"The pair {alias} needs {lacking[0]} as well.")
            continue
        current = registry.get_alias(alias)
        if current is not None and current.models == tuple(models):
            continue
        try:
            registry.set_alias(alias, *models)
        except SleapRtcError as error:
            refused.append(error.message)
        else:
            given.append(alias)
    return given, refused


# ── finding ──────────────────────────────────────────────────────────────────


def _deleted(registry: Registry, name: str, folders: list[Path]) -> Deleted | None:
    """The deleted model of a directory's name; None if it is alive, or nothing is known of it."""
    directory = registry.models_dir / name
    found = _tombstone(directory, name)
    if found is None:
        if os.path.lexists(directory / layout.RECORD):
            return None  # it is there, or can't be read
        found = next(filter(None, (_tombstone(folder, name) for folder in folders)), None)
        if found is None:
            return None
    tombstone, place = found
    was = _as_it_was(place, tombstone)
    where, size = _where(directory, was, tombstone, folders)
    aliases = tuple((a.name, a.models) for a in registry.former_aliases(was, place))
    return Deleted(
        record=was, aliases=aliases, where=where, size=size, directory=name, folders=tuple(folders)
    )


def _tombstone(place: Path, name: str) -> tuple[ModelRecord, Path] | None:
    """The record in a folder, and the folder; in the trash it may be of a model that lived."""
    with contextlib.suppress(DataError, OSError):
        found = chain.read(place / layout.RECORD, ModelRecord)
        if found is not None and found.value.directory == name:
            lived = found.value.deleted_at is None and place.name == name
            return None if lived else (found.value, place)
    return None


def _as_it_was(place: Path, tombstone: ModelRecord) -> ModelRecord:
    """The record before its deletion, with the time of that."""
    came: Status = "imported" if tombstone.source == "local-import" else "completed"
    status: Status = came if tombstone.files else "missing"
    for old in chain.earlier(place / layout.RECORD, ModelRecord):
        if old.deleted_at is None:
            status = old.status
            break
    return replace(tombstone, status=status)


def _where(
    directory: Path, was: ModelRecord, tombstone: ModelRecord, folders: list[Path]
) -> tuple[Where, int]:
    own = [file for file in was.files if file.link is None]
    places = [directory, *folders]
    size = sum(file.size for file in own if any(looks_like(p, file) == "ok" for p in places))
    here = any(os.path.lexists(directory / file.path) for file in was.files)
    if here and tombstone.status != "missing":  # else they were to go
        return "kept", size
    there = any(looks_like(place, file) != "missing" for place in places for file in was.files)
    return ("trash" if there else "nowhere"), size


def _folders(models: Path) -> dict[str, list[Path]]:
    """Name of a model's directory → its folders in the trash, the newest first."""
    found: dict[str, list[Path]] = {}
    for name in sorted(layout.listing(models / layout.TRASH), reverse=True):
        model = deleting.model_in_trash(name)
        if model is not None and layout.parse(model) is not None:
            found.setdefault(model, []).append(models / layout.TRASH / name)
    return found


def _when(one: Deleted) -> float:
    moment = one.record.deleted_at or one.record.created_at
    return moment.timestamp()


# ── bringing back ────────────────────────────────────────────────────────────


def _revived(registry: Registry, record: ModelRecord) -> Entry:
    """The record of a directory whose files were kept says again that it is there."""
    entry = registry.claims.settle(replace(record, deleted_at=None), revive=True)
    if entry is None:
        raise _gone(record)
    registry.changed = True
    return entry


def _assembled(
    registry: Registry, record: ModelRecord, folders: list[Path], cache: HashCache
) -> Path | None:
    """A folder of the trash with every file that can be found; None where there is none."""
    chosen: dict[Path, list[ModelFile]] = {}
    for file in record.files:
        place = _best(folders, file, cache)
        if place is not None:
            chosen.setdefault(place, []).append(file)
    if not chosen:
        return None
    if len(chosen) == 1:
        return next(iter(chosen))
    together = registry.claims.trash(record.directory)
    with disk_errors(together):
        for folder, files in chosen.items():
            for file in files:
                target = together / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / file.path).rename(target)
        for below in (*(p for p in together.rglob("*") if p.is_dir()), together, together.parent):
            if not below.is_symlink():
                sync_directory(below)
    return together


def _best(folders: list[Path], file: ModelFile, cache: HashCache) -> Path | None:
    """The folder with a file; of several the newest with the right content."""
    there = [folder for folder in folders if looks_like(folder, file) == "ok"]
    if len(there) > 1:
        right = (f for f in there if content_is(place_of(f, file), file, cache) == "ok")
        return next(right, there[0])
    if there:
        return there[0]
    # A link is itself worth bringing back: the drive that it leads to may be unplugged.
    linked = (f for f in folders if file.link is not None and (f / file.path).is_symlink())
    return next(linked, None)


def _placed(registry: Registry, record: ModelRecord, assembled: Path | None) -> Entry:
    came = replace(record, deleted_at=None)
    gone = [f for f in came.files if not (assembled and os.path.lexists(assembled / f.path))]
    if gone and came.status != "failed":
        came = replace(came, status="missing", interruption=None)
    try:
        if assembled is None:
            entry, _ = registry.take_in(came, revive=True)
        else:
            # It was in the library, and nothing but its own links may be in it.
            entry, _ = registry.claims.take_in(came, assembled, revive=True)
            registry.changed = True
    except FileNotFoundError as error:
        raise _gone(record) from error
    if entry is None or (assembled is not None and assembled.exists()):
        raise _gone(record)  # it is there already
    return entry


def _lacking(directory: Path, record: ModelRecord) -> tuple[str, ...]:
    return tuple(f.path for f in record.files if looks_like(directory, f) != "ok")


def _gone(record: ModelRecord) -> NotFound:
    return NotFound(
        message=f"The model {record.id} can't be brought back any more: somebody else removed "
        "its files, or brought it back, at this moment.",
        hint="sleap-rtc list-models and list-models --deleted show how it is now.",
    )
