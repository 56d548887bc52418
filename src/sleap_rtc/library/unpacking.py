"""Bringing back what a backup holds, into a library that may have models.

The archive is read in one pass, and what is read is untrusted: a member counts
only if it is a regular file that a record lists, with its size and its hash; its
name is looked up, and never used as a path. Each model is put together apart and
appears whole, so that an interrupted restore leaves whole models, and goes on
when it is done again. Records are read from the manifest one by one, which is in
a file without a name meanwhile; of all models no more than their ids is held in
memory.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.domain.values import decode
from sleap_rtc.errors import DataError
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.space import check_space
from sleap_rtc.library import layout, manifest, merging, portable
from sleap_rtc.library.backup import TOP, Head, expected_size, saved_files, spool
from sleap_rtc.library.bulk import Bulk
from sleap_rtc.library.claiming import same_model
from sleap_rtc.library.inspection.listed import looked_into_again
from sleap_rtc.library.merging import Report, has_content
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.tapes import Tape
from sleap_rtc.library.telling import Told, counted, unseen

_PIECE: Final = 1024 * 1024
_NO_NAME: Final = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}
)
_FAULTS: Final = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_MAX_HEAD: Final = 64 * 1024


def restore(
    registry: Registry,
    path: Path,
    *,
    revive: bool = False,
    opening: Told = unseen,
    told: Told = unseen,
    moved: Told = unseen,
    taken: Told = unseen,
    named: Told = unseen,
) -> Report:
    """Bring back a library, or merge it into one; nothing that is here is overwritten.

    Args:
        registry: The library.
        path: The archive.
        revive: Whether models that were deleted here come back.
        opening: Told of the bytes of the manifest that were looked through.
        told: Told of the records that were read, after that.
        moved: Told of the bytes of files that were read, after that.
        taken: Told of the models without files, after that.
        named: Told of the aliases, at the end.

    Returns:
        What became of each model and alias.

    Raises:
        DataError: It is no backup, was cut, or holds what no record lists; the models before that
            are restored.
        NewerFormat: A later sleap-rtc made it.
        OutOfSpace: There is no room.
        FileNotFoundError: There is no such file.
    """
    report = Report(str(path))
    with path.open("rb") as file:
        try:
            tape = Tape(file)
            members = tape.members()
            head = decode(Head, _text(tape, members, "backup.json", _MAX_HEAD), what="head")
            with disk_errors(registry.incoming):
                outline = _outline(tape, members, registry.incoming, str(path), opening)
                with Bulk(registry, report, revive=revive) as bulk:
                    restoring = _Restoring(bulk, head, outline, told=told)
                    check_space(registry.incoming, restoring.need)
                    restoring.run(tape, members, moved, taken)
        except (*_FAULTS, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(what=str(path), why=f"it is no whole backup ({error})") from None
    merging.mend_lineage(registry, report, restoring.records())
    aliases = counted(portable.aliases_of(outline, report), len(outline.aliases), named)
    merging.name_models(registry, report, aliases)
    return report


class _Coming(msgspec.Struct):
    """A model of which files come: they are put together in a folder."""

    record: ModelRecord
    folder: Path
    arrived: set[str] = msgspec.field(default_factory=set)


class _Restoring:
    """Restores model after model; the files of each stand together in the archive.

    Attributes:
        need: Bytes of the files that will be written.
    """

    def __init__(self, bulk: Bulk, head: Head, outline: manifest.Contents, *, told: Told) -> None:
        self._bulk = bulk
        self._registry = bulk.registry
        self._report = bulk.report
        self._outline = outline
        self._contents = head.links == "contents"
        self._current: ModelRecord | None = None
        self._files: dict[str, ModelFile] = {}
        self._refused: set[str] = set()
        self._here: set[str] = set()
        self._begun: set[str] = set()
        self._size = self.need = 0
        for record in self._readable(told):
            size = expected_size(record, self._contents)
            self._size += size
            if self._is_here(record):
                self._here.add(record.id)
            else:
                self.need += size

    def run(self, tape: Tape, members: Iterator[tarfile.TarInfo], moved: Told, taken: Told) -> None:
        """Take in every model."""
        done = 0
        coming: _Coming | None = None
        try:
            for member in members:
                if self._is_refused(member):
                    continue
                record, file = self._listed(member)
                if coming is None or record.id != coming.record.id:
                    finished, coming = coming, None
                    self._finish(finished)
                    coming = self._begin(record, member)
                if file.path in coming.arrived:
                    raise DataError(what=member.name[:200], why="it is in the backup twice")
                if record.id in self._here:
                    done += file.size
                elif _extract(tape, member, coming.folder, file):
                    coming.arrived.add(file.path)
                    done += file.size
                moved(done, self._size)
            finished, coming = coming, None
            self._finish(finished)
        finally:
            if coming is not None:
                shutil.rmtree(coming.folder, ignore_errors=True)
        without = len(self._outline.models) - len(self._refused) - len(self._begun)
        for record in counted(self._unbegun(), without, taken):
            self._without_files(record)

    def records(self) -> Iterator[ModelRecord]:
        """Every record in the backup that can be used, one at a time."""
        for name, raw in self._outline.models.items():
            if name not in self._refused:
                yield manifest.record_of(name, raw)

    def _unbegun(self) -> Iterator[ModelRecord]:
        return (record for record in self.records() if record.id not in self._begun)

    def _readable(self, told: Told) -> Iterator[ModelRecord]:
        """The same, as it is found out which they are."""
        models = self._outline.models
        for name, raw in counted(models.items(), len(models), told):
            try:
                record = manifest.record_of(name, raw)
                for file in record.files:
                    check_path(file.path)
            except DataError as error:
                self._report.add("model", name, "refused", why=error.message)
                self._refused.add(name)
            else:
                yield record

    def _is_here(self, record: ModelRecord) -> bool:
        """Whether it needn't be read: it is here, or was deleted here and stays so."""
        there = self._registry.known(record.id, record.model_type)
        if there is None or not same_model(there, record):
            return False
        return there.deleted_at is None or not self._bulk.revive

    def _is_refused(self, member: tarfile.TarInfo) -> bool:
        """Whether it is a file of a model whose record can't be read."""
        parsed = layout.parse(member.name.removeprefix(f"{TOP}/models/").partition("/")[0])
        return parsed is not None and parsed[1] in self._refused

    def _listed(self, member: tarfile.TarInfo) -> tuple[ModelRecord, ModelFile]:
        """The model and the file that a member is of."""
        top, _, rest = member.name.partition("/models/")
        model, _, path = rest.partition("/")
        if self._current is None or self._current.directory != model:
            self._current = self._record_of(model)
            listed = () if self._current is None else saved_files(self._current, self._contents)
            self._files = {file.path: file for file in listed}
        file = self._files.get(path)
        if self._current is None or file is None or top != TOP or not member.isreg():
            raise DataError(what=member.name[:200], why="no model in the backup lists this file")
        return self._current, file

    def _record_of(self, directory: str) -> ModelRecord | None:
        parsed = layout.parse(directory)
        raw = None if parsed is None else self._outline.models.get(parsed[1])
        if parsed is None or raw is None:
            return None
        record = manifest.record_of(parsed[1], raw)
        return record if record.directory == directory else None

    def _begin(self, record: ModelRecord, member: tarfile.TarInfo) -> _Coming:
        if record.id in self._begun:
            raise DataError(what=member.name[:200], why="it stands apart from its model")
        self._begun.add(record.id)
        return _Coming(record=record, folder=self._registry.claims.new_folder())

    def _finish(self, coming: _Coming | None) -> None:
        """Take in a model with what arrived, and links to what is at its place still."""
        if coming is None:
            return
        record, folder, arrived = coming.record, coming.folder, coming.arrived
        files = []
        here = record.id in self._here
        complete = True
        for file in record.files:
            if file.path in arrived:
                own = replace(file, link=None)
                files.append(looked_into_again(own, folder / file.path))
            elif here:
                break
            elif file.link and has_content(Path(file.link), file):
                real = replace(file, link=os.path.realpath(file.link))
                link = folder / file.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real.link or "")
                files.append(looked_into_again(real, Path(real.link or "")))
            else:
                complete = False
                files.append(file)
        if here or not (arrived or complete):
            shutil.rmtree(folder, ignore_errors=True)
            self._without_files(record)
            return
        # What is there of a model that isn't whole stays: often it is a log that lacks.
        status = record.status if complete or record.status == "failed" else "missing"
        whole = replace(record, files=tuple(files), status=status)
        size = sum(file.size for file in record.files if file.path in arrived)
        self._bulk.add(whole, folder, size=size, links=True)

    def _without_files(self, record: ModelRecord) -> None:
        try:
            portable.take_in_record(self._bulk, record)
        except DataError as error:
            self._report.add("model", record.id, "refused", why=error.message)


def _text(tape: Tape, members: Iterator[tarfile.TarInfo], name: str, limit: int) -> bytes:
    source = tape.content(_leading(members, name, limit))
    return b"".join(iter(lambda: source.read(_PIECE), b""))


def _outline(
    tape: Tape, members: Iterator[tarfile.TarInfo], folder: Path, what: str, told: Told
) -> manifest.Contents:
    """The manifest's outline; it is kept in a file as long as somebody asks for its models."""
    member = _leading(members, "manifest.json", manifest.MAX_BYTES)
    check_space(folder, member.size)
    with spool(folder) as text:
        source = tape.content(member)
        while piece := source.read(_PIECE):
            text.write(piece)
            told(text.tell(), 2 * member.size)
        text.flush()
        return manifest.opened(text, what=what, told=lambda done, of: told(of + done, 2 * of))


def _leading(members: Iterator[tarfile.TarInfo], name: str, limit: int) -> tarfile.TarInfo:
    """A member of the archive's beginning, which has to come next."""
    member = next(members, None)
    if member is None or member.name != f"{TOP}/{name}" or not member.isreg():
        raise DataError(what="the archive", why=f"it is no backup: it lacks {name}")
    if member.size > limit:
        raise DataError(what=name, why=f"it has {member.size} bytes, more than the {limit} allowed")
    return member


def _extract(tape: Tape, member: tarfile.TarInfo, folder: Path, file: ModelFile) -> bool:
    """Write a member as the listed file; False, and nothing written, if it is another."""
    source = tape.content(member)
    if member.size != file.size:
        return False
    target = folder / check_path(file.path)
    digest = blake3()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.open("xb")
    except OSError as error:
        if error.errno in _NO_NAME:  # nothing that could be a file of that name here
            return False
        raise
    with made as out:
        while piece := source.read(_PIECE):
            digest.update(piece)
            out.write(piece)
    if digest.hexdigest() == file.blake3:
        return True
    target.unlink()
    return False
