"""Finding out what is wrong with a model of this library, and mending what this machine can mend.

====================================  ===============================================
fault                                 mended by
====================================  ===============================================
the newest revisions can't be read    the last good one becomes the newest again; the
                                      damaged ones are moved aside, never deleted
no revision can be read               ``model.json``, the copy for people
a second alias of its own             the later one stays
a link that leads nowhere             the file's new place, known by its content
a file that is gone or another        a copy with the content that the record lists
====================================  ===============================================

Content decides, never a name: a file is taken for the right one when its hash is
that of the record. What was in the way goes to the trash. The file at the end of
a link is the user's own and is never written to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain import values
from sleap_rtc.domain.ids import ModelId, is_id_prefix, is_model_id
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import Damaged, DataError, FilesMissing, NewerFormat, UnknownModel, UnsafePath
from sleap_rtc.files.durable import TEMPORARY, disk_errors, sync_directory
from sleap_rtc.files.hashcache import HashCache
from sleap_rtc.library import chain, layout, placing, records
from sleap_rtc.library.aliases import rank
from sleap_rtc.library.checking import content_is, place_of, state_of
from sleap_rtc.library.entries import Entry, Group
from sleap_rtc.library.inspection.listed import looked_into_again
from sleap_rtc.library.marks import changing
from sleap_rtc.library.registry import Registry

MAX_LOOKED: Final = 20_000
"""Files and folders that are looked at for one that has moved."""
MAX_DEPTH: Final = 4
"""Folders below the one that is searched."""

_STAMP: Final = "%Y%m%dT%H%M%SZ"

State = Literal["missing", "changed", "broken-link"]


class Fault(msgspec.Struct, frozen=True):
    """A file that isn't the one that the record lists.

    Attributes:
        file: As the record lists it.
        state: ``missing``: it isn't there; ``changed``: it is another; ``broken-link``: what it
            is a link to is gone, or on a drive that isn't there.
    """

    file: ModelFile
    state: State


class RecordMended(msgspec.Struct, frozen=True):
    """How a record was mended.

    Attributes:
        source: The revision that it is taken from; 0 for ``model.json``.
        aside: Names of the damaged revisions, as they are called now.
    """

    source: int
    aside: tuple[str, ...]


# ── the record ───────────────────────────────────────────────────────────────


def directories_of(registry: Registry, name: str) -> tuple[Path, ...]:
    """The directory of a model, or both of a pair, also where a record can't be read.

    Args:
        registry: The library.
        name: Its id, an alias, or the beginning of its id.

    Raises:
        UnknownModel: There is none.
        AmbiguousName: The name fits several.
    """
    with contextlib.suppress(Damaged):
        found = registry.resolve(name)
        if isinstance(found, Entry):
            return (found.directory,)
        if isinstance(found, Group):
            return tuple(entry.directory for entry in found.entries)
        raise UnknownModel(name=name, hint=f"{found} is in no library.")
    ids: tuple[ModelId, ...] = (ModelId(name),) if is_model_id(name) else ()
    with contextlib.suppress(DataError):
        alias = registry.get_alias(name)
        ids = alias.models if alias is not None else ids
    there = []
    for folder in layout.names(registry.models_dir):
        parsed = layout.parse(folder)
        if parsed is None:
            continue
        # A beginning that fits several was refused above, with those that can't be read.
        begun = not ids and is_id_prefix(name) and parsed[1].startswith(name)
        if begun or parsed[1] in ids:
            there.append(registry.models_dir / folder)
    if not there:
        raise UnknownModel(name=name, hint="Name the model by its whole id.")
    return tuple(there)


def mend_record(registry: Registry, directory: Path) -> RecordMended | None:
    """Make the last good revision of a record the newest, where later ones are damaged.

    Args:
        registry: The library.
        directory: The model's directory.

    Returns:
        What was done; None where the newest revision is a good one.

    Raises:
        Damaged: Nothing of the record can be read.
        NewerFormat: A later sleap-rtc wrote it, so it is left as it is.
    """
    folder = directory / layout.RECORD

    for _ in range(chain.ATTEMPTS):
        try:
            found = records.look(directory)
        except NewerFormat:
            raise
        except Damaged:
            record, good, top = _from_copy(directory), 0, chain.top(folder)
        else:
            if found is None:
                raise UnknownModel(name=directory.name)
            if found.number == found.top:
                return None
            record, good, top = found.value, found.number, found.top
        with changing(registry.models_dir, [directory.name]):
            if not chain.append(folder, top, values.encode(record)):
                continue  # somebody else changed it meanwhile: look again
            aside = _move_aside(folder, range(good + 1, top + 1))
        logger.bind(model=directory.name, source=good).warning("a damaged record was mended")
        return RecordMended(source=good, aside=aside)
    raise chain.busy(folder)


def _from_copy(directory: Path) -> ModelRecord:
    path = directory / layout.COPY
    try:
        if path.is_symlink():
            raise DataError(what=str(path), why="it is a link")
        record = values.decode(ModelRecord, path.read_bytes(), what=str(path))
        if record.directory != directory.name:
            raise DataError(what=str(path), why=f"it is of {record.directory}")
        for file in record.files:
            check_path(file.path)
    except (OSError, DataError) as error:
        raise Damaged(
            what=f"The record of {directory.name}",
            why="no revision of it can be read, nor its copy",
            hint=f"sleap-rtc import-model {directory} makes a new one of its files ({error}).",
        ) from None
    return record


def _move_aside(folder: Path, numbers: Iterable[int]) -> tuple[str, ...]:
    stamp = datetime.now(UTC).strftime(_STAMP)
    moved = []
    for number in numbers:
        name = chain.file_name(number)
        with contextlib.suppress(FileNotFoundError):  # it was pruned
            (folder / name).rename(folder / f"damaged-{stamp}-{name}")
            moved.append(f"damaged-{stamp}-{name}")
    sync_directory(folder)
    return tuple(moved)


# ── the aliases ──────────────────────────────────────────────────────────────


def mend_aliases(registry: Registry, model: ModelId) -> tuple[str, ...]:
    """Remove a model's aliases of its own but the latest one, and return their names."""
    own = sorted((a for a in registry.list_aliases() if a.models == (model,)), key=rank)
    for alias in own[:-1]:
        registry.remove_alias(alias.name)
    return tuple(alias.name for alias in own[:-1])


# ── the files ────────────────────────────────────────────────────────────────


def examine(
    entry: Entry, cache: HashCache, *, on_file: Callable[[str], None] = lambda _: None
) -> tuple[Fault, ...]:
    """Read a model's files and compare them with what its record lists.

    Args:
        entry: The model.
        cache: Hashes of unchanged files.
        on_file: Called with the path of each file before it is read.

    Raises:
        PermissionError: This user may not read one: nobody knows what it is.
    """
    faults = []
    for file in entry.record.files:
        on_file(file.path)
        state = state_of(entry.directory, file, cache)
        if state == "changed":
            _check_permitted(place_of(entry.directory, file))
        if state != "ok":
            broken = file.link is not None and state == "missing"
            faults.append(Fault(file=file, state="broken-link" if broken else state))
    return tuple(faults)


def _check_permitted(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        raise
    except OSError:
        return


def find_nearby(
    entry: Entry, faults: Sequence[Fault], cache: HashCache, *, near: Path | None = None
) -> dict[str, Path]:
    """Where on this machine the right content of faulty files is.

    Args:
        entry: The model.
        faults: Its faulty files.
        cache: Hashes of unchanged files.
        near: A folder to search, or the file itself; by default where links lead and led to.

    Returns:
        Path in the model → the file, for those that were found. Their content was read.
    """
    wanted: dict[int, list[ModelFile]] = {}
    for fault in faults:
        wanted.setdefault(fault.file.size, []).append(fault.file)
    found: dict[str, Path] = {}
    for path in _candidates(entry, faults, near):
        with contextlib.suppress(OSError):
            for file in wanted.get(path.stat().st_size, ()):
                if file.path not in found and content_is(path, file, cache) == "ok":
                    found[file.path] = path
        if len(found) == len(faults):
            break
    return found


def _candidates(entry: Entry, faults: Sequence[Fault], near: Path | None) -> Iterator[Path]:
    """Files that may be the right ones, the likeliest first."""
    if near is not None:
        place = near.expanduser().resolve()
        if place.is_file():
            yield place
            return
        for fault in faults:
            for name in (fault.file.path, Path(fault.file.link or fault.file.path).name):
                if (place / name).is_file():
                    yield (place / name).resolve()
        yield from _below([place])
        return
    links = [fault.file for fault in faults if fault.file.link is not None]
    for file in links:
        # A person may have mended the link by hand: then only the record is behind.
        target = Path(os.path.realpath(entry.directory / file.path))
        if target.is_file() and not target.is_relative_to(entry.directory):
            yield target
    known = [Path(file.link).parent for file in entry.record.files if file.link is not None]
    roots = dict.fromkeys(_existing(folder) for folder in known)
    yield from _below([root for root in roots if len(root.parts) > 2])


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that is there."""
    while not folder.is_dir() and folder.parent != folder:
        folder = folder.parent
    return folder


def _below(roots: Sequence[Path]) -> Iterator[Path]:
    """Files below some folders, level by level; links to folders are not followed."""
    looked = 0
    level = list(roots)
    for _ in range(MAX_DEPTH + 1):
        following: list[Path] = []
        for folder in level:
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            for entry in entries:
                looked += 1
                if looked > MAX_LOOKED:
                    return
                if entry.is_dir(follow_symlinks=False):
                    following.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)
        level = following


def relink(registry: Registry, entry: Entry, found: Mapping[str, Path]) -> Entry:
    """Let files that were imported by link be links to other places.

    Args:
        registry: The library.
        entry: The model.
        found: Path in the model → the file, whose content was compared; from :func:`find_nearby`.

    Raises:
        UnsafePath: Something that isn't a link of ours stands there.
    """
    targets = {path: os.path.realpath(place) for path, place in found.items()}
    files = {file.path: file for file in entry.record.files}
    with changing(registry.models_dir, [entry.directory.name]), disk_errors(entry.directory):
        for path, target in targets.items():
            _place_link(entry.directory / path, target, was=files[path].link)
    mended = (replace(files[path], link=target) for path, target in targets.items())
    return _settled(
        registry, entry, {f.path: looked_into_again(f, Path(f.link or "")) for f in mended}
    )


def _place_link(place: Path, target: str, *, was: str | None) -> None:
    if os.path.lexists(place):
        ours = place.is_symlink() and os.path.realpath(place) in (was, target)
        if not ours:
            raise UnsafePath(path=str(place), why="something else than the library's link is there")
        if os.path.realpath(place) == target and place.exists():
            return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    temporary.symlink_to(target)
    temporary.replace(place)
    sync_directory(place.parent)


def copy_in(registry: Registry, entry: Entry, found: Mapping[str, Path]) -> Entry:
    """Put copies of files where a model lacks them, or has others.

    Args:
        registry: The library.
        entry: The model.
        found: Path in the model → the file to copy, which is compared with the record once more.

    Raises:
        OutOfSpace: There is no room; nothing was changed.
        Damaged: A copy came out other than the record says; nothing was changed.
    """
    ready = registry.claims.new_folder()
    try:
        with disk_errors(ready):
            for path, place in found.items():
                target = ready / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, target)
        return put_back(registry, entry, ready)
    finally:
        shutil.rmtree(ready, ignore_errors=True)


def put_back(registry: Registry, entry: Entry, ready: Path) -> Entry:
    """Move files into a model's directory; what is in the way goes to the trash.

    Args:
        registry: The library.
        entry: The model.
        ready: A folder on the library's file system with the files, under their paths in the
            model. Each is read, and must be what the record lists.

    Raises:
        Damaged: A file isn't what the record lists; nothing was changed.
        FilesMissing: The folder is empty.
    """
    never = HashCache(ready / "no-such-folder")
    coming = tuple(
        replace(file, link=None)
        for file in entry.record.files
        if os.path.lexists(ready / file.path)
    )
    if not coming:
        raise FilesMissing(name=entry.label, files="those that were to be put back")
    for file in coming:
        if content_is(ready / file.path, file, never) != "ok":
            raise Damaged(what=file.path, why="it isn't what the record lists")
        _sync(ready / file.path)
    trash = registry.claims.trash(entry.directory.name)
    with changing(registry.models_dir, [entry.directory.name]), disk_errors(entry.directory):
        for file in coming:
            _out_of_the_way(entry.directory, file.path, trash)
        only = replace(entry.record, files=coming, checkpoint=None, config=None)
        placing.move_in(ready, entry.directory, only, links=False)
    return _settled(
        registry,
        entry,
        {file.path: looked_into_again(file, entry.directory / file.path) for file in coming},
    )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _out_of_the_way(directory: Path, path: str, trash: Path) -> None:
    """Move what is at a file's place, and what is a file or a link where its folders must be."""
    place = directory
    for part in path.split("/"):
        place /= part
        last = place == directory / path
        if os.path.lexists(place) and (last or place.is_symlink() or not place.is_dir()):
            target = trash / place.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            place.rename(target)
            return


def _settled(registry: Registry, entry: Entry, now: Mapping[str, ModelFile]) -> Entry:
    """The record with its files as they are now, as far as it still lists them."""
    before = {file.path: file for file in entry.record.files}

    def mended(old: ModelRecord) -> ModelRecord:
        files = (
            now.get(file.path, file) if before.get(file.path) == file else file
            for file in old.files
        )
        return replace(old, files=tuple(files))

    return registry.update(entry.id, mended)


def found_again(registry: Registry, entry: Entry) -> Entry:
    """Let a model that was called missing be what it was, now that its files are whole."""

    def found(old: ModelRecord) -> ModelRecord:
        came = "imported" if old.source == "local-import" else "completed"
        return replace(old, status=came) if old.status == "missing" else old

    return registry.update(entry.id, found)
