"""A model that comes from another machine: what is here of it, and how it comes in.

::

    weigh        new ──► placed, under its id                          added
                         placed; a deleted model keeps the id          renamed
                 same ─► what came is dropped                          known
                 bare ─► its files go to the record that is here       completed
                 other ► refused, or
                         the one here goes to the trash, and           replaced
                         this one takes its place and its names
                         placed, under the next free id                renamed

The same on a client and on a worker. What is here is weighed again at the moment
at which the files come in, so two who bring one model at a time end as one did.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from sleap_rtc.domain.ids import with_suffix
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import AlreadyExists, Conflict, DataError, UnknownModel
from sleap_rtc.files.durable import (
    disk_errors,
    make_directory,
    place_directory,
    sync_directory,
)
from sleap_rtc.library import layout, placing, records
from sleap_rtc.library.checking import looks_like
from sleap_rtc.library.claiming import same_model
from sleap_rtc.library.entries import MAX_LIMIT, Entry, Query
from sleap_rtc.library.marks import changing
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.repair import found_again
from sleap_rtc.protocol.moving import How, IfExists, Verdict

AT_WORK: Final = frozenset({"training", "interrupted"})
"""A job still writes to a model of these, or may go on with it."""


class Weighed(msgspec.Struct, frozen=True):
    """What is here of a model that would come.

    Attributes:
        verdict: What is here.
        entry: The model, or the one in its way; None for ``new``.
    """

    verdict: Verdict
    entry: Entry | None = None


class Arrived(msgspec.Struct, frozen=True):
    """A model that came in.

    Attributes:
        entry: As it is here now.
        how: How it came in.
        trash: Where the one is that it replaced, None if there was none.
    """

    entry: Entry
    how: How
    trash: Path | None = None


def weigh(registry: Registry, record: ModelRecord) -> Weighed:
    """See what is here of a model; nothing is changed.

    Args:
        registry: The library.
        record: As it is where it comes from, with its package.
    """
    mine = _holder(registry, record)
    same = _with_content(registry, record, mine)
    if same is not None:
        return Weighed(verdict="same" if _is_whole(same) else "bare", entry=same)
    if mine is None:
        return Weighed(verdict="new")
    bare = not mine.record.files and same_model(mine.record, record)
    return Weighed(verdict="bare" if bare else "other", entry=mine)


def arrive(
    registry: Registry, record: ModelRecord, assembled: Path, *, if_exists: IfExists = "refuse"
) -> Arrived:
    """Take a model in whose files have arrived.

    Args:
        registry: The library.
        record: As it shall be here, with its files and their package.
        assembled: A directory with exactly these, verified and synced, on the library's file
            system. It is gone afterwards.
        if_exists: What becomes of another model with its id.

    Raises:
        AlreadyExists: Another model has its id; nothing was changed.
        Conflict: It may not come in now: a job here still works on it.
        UnsafePath: A path is refused.
        OutOfSpace: The disk is full; nothing was placed.
    """
    found = weigh(registry, record)
    here = found.entry
    if here is None:
        return _placed(registry, record, assembled)
    match found.verdict:
        case "same":
            shutil.rmtree(assembled)
            return Arrived(entry=here, how="known")
        case "bare":
            return _complete(registry, here, record, assembled)
        case _:
            if if_exists == "overwrite":
                return _replace(registry, here, record, assembled)
            if if_exists == "keep-both":
                return _placed(registry, record, assembled)
            raise AlreadyExists(what=f"another model with the id {here.id}")


def check_replaceable(entry: Entry, model_type: str) -> None:
    """See that a model may make way for another one.

    Raises:
        Conflict: A job still works on it, or it is of another type.
    """
    record = entry.record
    if record.status in AT_WORK:
        raise Conflict(message=f"Model {entry.label} is {record.status}: a job still needs it.")
    if record.model_type != model_type:
        raise Conflict(
            message=f"Model {entry.label} is a {record.model_type}, and no {model_type} can take "
            "its place.",
            hint="Keep both.",
        )


def _placed(registry: Registry, record: ModelRecord, assembled: Path) -> Arrived:
    entry = registry.place(assembled, record)
    return Arrived(entry=entry, how="added" if entry.id == record.id else "renamed")


def _complete(registry: Registry, here: Entry, record: ModelRecord, assembled: Path) -> Arrived:
    if here.record.status == "training":
        raise Conflict(message=f"Model {here.label} is being trained: its files are still to come.")
    # How its training ended may be news; what it was before its files were lost, it is again.
    ended = here.record.status == "interrupted" and record.status in ("completed", "failed")
    if not ended:
        record = replace(record, status=here.record.status)
    registry.adopt_files(here.id, assembled, record)
    return Arrived(entry=found_again(registry, registry.get(here.id)), how="completed")


def _replace(registry: Registry, here: Entry, record: ModelRecord, assembled: Path) -> Arrived:
    """Let a model take the place of another one, which goes to the trash with its record.

    Between the two renames neither is in the library: whoever was killed there finds the one in
    the trash and the other one where it was put together, and places it by the same call.
    """
    check_replaceable(here, record.model_type)
    placing.check_files(assembled, record, links=False)
    _drop_own(assembled)
    record = records.create(assembled, replace(record, id=here.id))
    with disk_errors(assembled):
        for hint in sorted((here.directory / layout.RECORD).glob(f"{records.HINT}*")):
            shutil.copyfile(hint, assembled / layout.RECORD / hint.name)
        sync_directory(assembled / layout.RECORD)
    trash = registry.claims.trash(here.directory.name)
    make_directory(trash.parent)
    with changing(registry.models_dir, [here.directory.name]), disk_errors(trash):
        try:
            here.directory.rename(trash)
        except FileNotFoundError:
            raise UnknownModel(name=here.id, hint="It was moved away meanwhile.") from None
        sync_directory(trash.parent)
        place_directory(assembled, here.directory)
    return Arrived(entry=registry.get(here.id), how="replaced", trash=trash)


def _drop_own(assembled: Path) -> None:
    """Remove what looks like the library's own: it is never taken from a stranger."""
    for file in assembled.iterdir():
        if layout.is_own(file.name):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def _holder(registry: Registry, record: ModelRecord) -> Entry | None:
    """The model that has the id; None if none has, or it was deleted."""
    try:
        return registry.get(record.id)
    except UnknownModel:
        return None


def _with_content(registry: Registry, record: ModelRecord, mine: Entry | None) -> Entry | None:
    """A model with this content, one that is whole before one that isn't."""
    found: Entry | None = None
    for entry in itertools.chain(
        () if mine is None else (mine,), _alike(registry, record), _listed(registry, record)
    ):
        if entry.record.package == record.package and entry.record.files:
            if _is_whole(entry):
                return entry
            found = found or entry
    return found


def _alike(registry: Registry, record: ModelRecord) -> Iterator[Entry]:
    """Models that were made alike, which have its id but for the suffix."""
    for number in itertools.count(1):
        try:
            yield registry.get(with_suffix(record.id, number))
        except UnknownModel:
            if number > 1:
                return
        except DataError:
            continue


def _listed(registry: Registry, record: ModelRecord) -> Iterator[Entry]:
    """All others of its type, from the index: content that was registered under another id."""
    query = Query(types=(record.model_type,), limit=MAX_LIMIT)
    while True:
        page = registry.list(query)
        for listed in page.entries:
            if listed.record.package == record.package:
                with contextlib.suppress(UnknownModel, DataError):  # the index may lag
                    yield registry.get(listed.id)
        if page.cursor is None:
            return
        query = replace(query, cursor=page.cursor)


def _is_whole(entry: Entry) -> bool:
    files = entry.record.files
    return all(looks_like(entry.directory, file) == "ok" for file in files)
