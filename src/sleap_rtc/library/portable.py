"""Exporting a library's manifest, and merging one into a library.

A manifest is untrusted: a record's files count only where they have exactly the
content that it names, be it in the library or at the end of a link; a model
without them comes in as missing, to be repaired. How safe they are is looked at
here, whatever it says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import DataError
from sleap_rtc.files.durable import sync_directory, written_whole
from sleap_rtc.library import layout, manifest, merging
from sleap_rtc.library.bulk import Bulk
from sleap_rtc.library.manifest import Contents, Written, ids_of, record_of, write
from sleap_rtc.library.merging import Report, has_content
from sleap_rtc.library.placing import check_file
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.telling import Told, counted, unseen


def export(
    registry: Registry, path: Path, *, as_of: datetime, replacing: bool, told: Told = unseen
) -> Written:
    """Write a library's manifest to a file, from the records themselves.

    Args:
        registry: The library.
        path: The file; it has its name only when it is whole.
        as_of: The time, UTC.
        replacing: Whether a file that is there is replaced.
        told: Told how far it is.

    Raises:
        AlreadyExists: There is one, and it isn't to be replaced.
        OutOfSpace: The disk is full; what was there stands.
    """
    of = sum(1 for _ in layout.names(registry.models_dir))
    with written_whole(path, replacing=replacing) as file:
        models = manifest.once(counted(registry.walk(), of, told))
        return write(file, models, registry.list_aliases(), as_of=as_of)


def take_in(
    registry: Registry,
    contents: Contents,
    *,
    source: str,
    revive: bool = False,
    told: Told = unseen,
    named: Told = unseen,
) -> Report:
    """Merge a manifest into a library; done again, it goes on where it stopped.

    Args:
        registry: The library.
        contents: Of version 2.
        source: Names the manifest in the report.
        revive: Whether models that were deleted here come back.
        told: Told of the models that were taken in.
        named: Told of the aliases, after that.

    Raises:
        OutOfSpace: The disk is full; what was taken in before stays.
        PathNotPermitted: The library can't be written to.
    """
    report = Report(source)
    with Bulk(registry, report, revive=revive) as bulk:
        for name, raw in counted(contents.models.items(), len(contents.models), told):
            try:
                take_in_record(bulk, record_of(name, raw))
            except DataError as error:
                report.add("model", name, "refused", why=error.details.get("why", error.message))
    merging.mend_lineage(registry, report, _readable(contents))
    aliases = counted(aliases_of(contents, report), len(contents.aliases), named)
    merging.name_models(registry, report, aliases)
    return report


def _readable(contents: Contents) -> Iterator[ModelRecord]:
    for name, raw in contents.models.items():
        with contextlib.suppress(DataError):
            yield record_of(name, raw)


def aliases_of(contents: Contents, report: Report) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The aliases in a manifest with their ids; what names none is noted as refused."""
    for name, raw in contents.aliases.items():
        try:
            yield name, ids_of(raw)
        except DataError as error:
            report.add("alias", name, "refused", why=error.details["why"])


def take_in_record(bulk: Bulk, record: ModelRecord) -> None:
    """Take in a record with its files, wherever on this machine they are, or as missing.

    Raises:
        DataError: A path in it is refused.
        OutOfSpace: The disk is full.
    """
    local = replace(record, files=tuple(replace(f, link=None) for f in record.files))
    from sleap_rtc.library.inspection.listed import looked_into_again  # noqa: PLC0415 - it is slow

    if _lies_here(bulk.registry, local):
        directory = bulk.registry.models_dir / local.directory
        files = tuple(looked_into_again(f, directory / f.path) for f in local.files)
        entry = bulk.registry.settle(replace(local, files=files), revive=bulk.revive)
        if entry is not None:
            bulk.report.add("model", record.id, "added", now=entry.id, why="its files were here")
            return
    at_ends = tuple(_at_its_end(file) for file in record.files)
    there = {
        f.path: looked_into_again(f, Path(f.link))
        for f in at_ends
        if f.link and has_content(Path(f.link), f)
    }
    whole = bool(there) and len(there) == len(record.files)
    status = record.status if whole or record.status == "failed" else "missing"
    if there:  # though it be a part: what it has lost may be its log alone
        assembled = linked(bulk.registry, replace(record, files=tuple(there.values())))
        listed = tuple(there.get(f.path, f) for f in at_ends)
        bulk.add(replace(record, files=listed, status=status), assembled, links=True)
        return
    bulk.add(replace(record, status=status))


def _lies_here(registry: Registry, record: ModelRecord) -> bool:
    """Whether a model's directory is in the library, without a record but with all its files."""
    directory = registry.models_dir / record.directory
    if not record.files or not directory.is_dir():
        return False
    try:
        return all(
            check_file(directory, file, links=False) and has_content(directory / file.path, file)
            for file in record.files
        )
    except (DataError, OSError):
        return False


def linked(registry: Registry, record: ModelRecord) -> Path:
    """A folder to be taken in, with a link to each of a record's files.

    Raises:
        UnsafePath: A file's path leaves the folder.
    """
    folder = registry.claims.new_folder()
    try:
        folders = {folder}
        for file in record.files:
            path = folder / check_path(file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(file.link or "")
            folders.add(path.parent)
        for each in folders:
            sync_directory(each)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _at_its_end(file: ModelFile) -> ModelFile:
    """A linked file with the real path that its link leads to."""
    if file.link is None or "\0" in file.link:
        return replace(file, link=None)
    return replace(file, link=os.path.realpath(file.link))
