"""A whole library in one file, and back: a tar archive that any tar can open.

::

    sleap-rtc/backup.json                    when, how many models and bytes, with links' contents?
    sleap-rtc/manifest.json                  every record and alias: see `manifest`
    sleap-rtc/models/centroid_3f2a9c01/…     the files that the records list, model by model

It is written and read in one pass. What is read is untrusted: a member counts
only if it is a regular file that a record lists, with its size and its hash; its
name is looked up, and never used as a path. Each model is put together apart and
appears whole, so that an interrupted restore leaves whole models, and goes on
when it is done again.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, Final, Literal

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import check_path
from sleap_rtc.domain.values import Document, decode, encode_pretty
from sleap_rtc.errors import AlreadyExists, DataError, UsageError
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.durable import disk_errors, sync_directory, sync_file, written_whole
from sleap_rtc.files.space import check_space
from sleap_rtc.library import layout, manifest, merging, portable, zstd
from sleap_rtc.library.checking import place_of
from sleap_rtc.library.claiming import same_model
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.merging import Report, has_content
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.tapes import Tape

TOP: Final = "sleap-rtc"
ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst")

_PIECE: Final = 1024 * 1024
_NO_NAME: Final = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL}
)
_FAULTS: Final = (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_MAX_HEAD: Final = 64 * 1024

Moved = Callable[[int, int], None]
"""Called with how many bytes of how many are done; what it raises ends the work."""


class Head(Document, frozen=True):
    """The first member: what the archive holds.

    Attributes:
        made_at: When it was begun, UTC.
        models: Number of models.
        size: Bytes of all files.
        links: Whether linked files are in it, or only where they are.
    """

    made_at: datetime
    models: int
    size: int
    links: Literal["contents", "places"]


class Saved(msgspec.Struct, frozen=True):
    """What a backup holds.

    Attributes:
        models: Number of models.
        aliases: Number of aliases.
        size: Bytes of the files in it.
        left_out: Models, or files of theirs, that could not be saved, with a sentence each.
        linked: Number of models of which files are linked to, and not in it.
    """

    models: int
    aliases: int
    size: int
    left_out: tuple[Unreadable, ...]
    linked: int


def save(
    registry: Registry,
    path: Path,
    *,
    now: datetime,
    contents: bool = False,
    replacing: bool = False,
    moved: Moved = lambda _done, _of: None,
) -> Saved:
    """Save a library; the file has its name only when it is whole.

    Args:
        registry: The library.
        path: The archive, by whose ending it is compressed.
        now: The time, UTC.
        contents: Whether the contents of linked files are saved too.
        replacing: Whether a file that is there is replaced.
        moved: Told of the bytes that were written.

    Raises:
        UsageError: The name ends otherwise, or with ``.zst`` where that can't be written.
        AlreadyExists: There is a file, and it isn't to be replaced.
        OutOfSpace: The disk is full; nothing is left.
    """
    mode = _mode(path)
    if not replacing and os.path.lexists(path):
        raise AlreadyExists(what=str(path))
    found = list(registry.walk())
    entries = [entry for entry in found if isinstance(entry, Entry)]
    left_out = [entry for entry in found if isinstance(entry, Unreadable)]
    listed = [[file for file in e.record.files if contents or not file.link] for e in entries]
    head = Head(
        made_at=now,
        models=len(entries),
        size=sum(file.size for files in listed for file in files),
        links="contents" if contents else "places",
    )
    text = io.BytesIO()
    written = manifest.write(text, entries, registry.list_aliases(), as_of=now)
    done = 0

    def more(size: int) -> None:
        nonlocal done
        done += size
        moved(done, head.size)

    with (
        written_whole(path, replacing=replacing) as out,
        _packed(path, out) as packed,
        tarfile.open(fileobj=packed, mode=mode, format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, "backup.json", encode_pretty(head), now)
        _add(archive, "manifest.json", text.getvalue(), now)
        for entry, files in zip(entries, listed, strict=True):
            for file in files:
                why = _add_file(archive, entry, file, more)
                if why:
                    left_out.append(Unreadable(directory=entry.directory.name, why=why))
    return Saved(
        models=written.models,
        aliases=written.aliases,
        size=done,
        left_out=tuple(left_out),
        linked=sum(
            len(files) < len(e.record.files) for e, files in zip(entries, listed, strict=True)
        ),
    )


def restore(
    registry: Registry,
    path: Path,
    *,
    revive: bool = False,
    moved: Moved = lambda _done, _of: None,
) -> Report:
    """Bring back a library, or merge it into one; nothing that is here is overwritten.

    Args:
        registry: The library.
        path: The archive.
        revive: Whether models that were deleted here come back.
        moved: Told of the bytes that were read.

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
            outline = manifest.parse(
                _text(tape, members, "manifest.json", manifest.MAX_BYTES), what=str(path)
            )
            restoring = _Restoring(registry, report, head, outline, revive=revive)
            with disk_errors(registry.incoming):
                check_space(registry.incoming, restoring.need)
                restoring.run(tape, members, moved)
        except (*_FAULTS, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(what=str(path), why=f"it is no whole backup ({error})") from None
    merging.mend_lineage(registry, report, restoring.records)
    merging.name_models(registry, report, portable.aliases_of(outline, report))
    return report


class _Restoring:
    """Restores model after model; the archive has their files in the manifest's order."""

    def __init__(
        self,
        registry: Registry,
        report: Report,
        head: Head,
        outline: manifest.Contents,
        *,
        revive: bool,
    ) -> None:
        self._registry = registry
        self._report = report
        self._revive = revive
        self._contents = head.links == "contents"
        self._files: dict[str, ModelFile] = {}
        self._files_of = ""
        self._refused: set[str] = set()
        self._records = self._readable(outline)
        self._here = {name for name, record in self._records.items() if self._is_here(record)}
        wanted = (r for name, r in self._records.items() if name not in self._here)
        self._size = sum(f.size for r in self._records.values() for f in self._saved(r))
        self.need = sum(file.size for record in wanted for file in self._saved(record))

    def run(self, tape: Tape, members: Iterator[tarfile.TarInfo], moved: Moved) -> None:
        """Take in every model."""
        left = dict(self._records)
        done = 0
        name, folder, arrived = "", None, set[str]()
        try:
            for member in members:
                if self._is_refused(member):
                    continue
                model, file = self._listed(member)
                if model != name:
                    if folder is not None:
                        self._finish(left.pop(name), folder, arrived)
                    if model not in left:
                        raise DataError(what=member.name, why="it stands apart from its model")
                    name, arrived = model, set()
                    folder = self._registry.claims.new_folder()
                if file.path in arrived:
                    raise DataError(what=member.name[:200], why="it is in the backup twice")
                if name in self._here:
                    done += file.size
                elif folder is not None and _extract(tape, member, folder, file):
                    arrived.add(file.path)
                    done += file.size
                moved(done, self._size)
            if folder is not None:
                self._finish(left.pop(name), folder, arrived)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        for record in left.values():
            self._without_files(record)

    @property
    def records(self) -> Iterable[ModelRecord]:
        """Every record in the backup that could be read."""
        return self._records.values()

    def _readable(self, outline: manifest.Contents) -> dict[str, ModelRecord]:
        found = {}
        for name, raw in outline.models.items():
            try:
                record = manifest.record_of(name, raw)
                for file in record.files:
                    check_path(file.path)
            except DataError as error:
                self._report.add("model", name, "refused", why=error.message)
                self._refused.add(name)
            else:
                found[record.directory] = record
        return found

    def _is_here(self, record: ModelRecord) -> bool:
        """Whether it needn't be read: it is here, or was deleted here and stays so."""
        there = self._registry.known(record.id, record.model_type)
        if there is None or not same_model(there, record):
            return False
        return there.deleted_at is None or not self._revive

    def _saved(self, record: ModelRecord) -> list[ModelFile]:
        return [file for file in record.files if self._contents or not file.link]

    def _is_refused(self, member: tarfile.TarInfo) -> bool:
        """Whether it is a file of a model whose record can't be read."""
        parsed = layout.parse(member.name.removeprefix(f"{TOP}/models/").partition("/")[0])
        return parsed is not None and parsed[1] in self._refused

    def _listed(self, member: tarfile.TarInfo) -> tuple[str, ModelFile]:
        top, _, rest = member.name.partition("/models/")
        model, _, path = rest.partition("/")
        if model != self._files_of and model in self._records:
            self._files_of = model
            self._files = {file.path: file for file in self._saved(self._records[model])}
        listed = self._files.get(path) if (top, model) == (TOP, self._files_of) else None
        if listed is None or not member.isreg():
            raise DataError(what=member.name[:200], why="no model in the backup lists this file")
        return model, listed

    def _finish(self, record: ModelRecord, folder: Path, arrived: set[str]) -> None:
        """Take in a model with what arrived, and links to what is at its place still."""
        files = []
        here = record.directory in self._here
        complete = True
        for file in record.files:
            if file.path in arrived:
                files.append(replace(file, link=None))
            elif here:
                break
            elif file.link and has_content(Path(file.link), file):
                real = replace(file, link=os.path.realpath(file.link))
                link = folder / file.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real.link or "")
                files.append(real)
            else:
                complete = False
                files.append(file)
        if here or not (arrived or complete):
            shutil.rmtree(folder, ignore_errors=True)
            self._without_files(record)
            return
        for below, _, _ in os.walk(folder):
            sync_directory(Path(below))
        # What is there of a model that isn't whole stays: often it is a log that lacks.
        status = record.status if complete or record.status == "failed" else "missing"
        whole = replace(record, files=tuple(files), status=status)
        merging.take_in(
            self._registry, self._report, whole, folder, links=True, revive=self._revive
        )

    def _without_files(self, record: ModelRecord) -> None:
        try:
            portable.take_in_record(self._registry, self._report, record, revive=self._revive)
        except DataError as error:
            self._report.add("model", record.id, "refused", why=error.message)


def _mode(path: Path) -> Literal["w|", "w|gz"]:
    if path.name.endswith((".tar.gz", ".tgz")):
        return "w|gz"
    if path.name.endswith((".tar", ".tar.zst")):
        return "w|"
    raise UsageError(
        message=f"A backup's name ends with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}.",
        hint=f"For example {path.name.partition('.')[0] or 'library'}.tar",
    )


def _packed(path: Path, out: BinaryIO) -> contextlib.AbstractContextManager[IO[bytes]]:
    """What a tar is written to, where it isn't packed by the tar's own means."""
    return zstd.writer(out) if path.name.endswith(".zst") else contextlib.nullcontext(out)


def _add(archive: tarfile.TarFile, name: str, data: bytes, now: datetime) -> None:
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size, info.mtime, info.mode = len(data), int(now.timestamp()), 0o600
    archive.addfile(info, io.BytesIO(data))


def _add_file(
    archive: tarfile.TarFile, entry: Entry, file: ModelFile, more: Callable[[int], None]
) -> str:
    """Add a file; a sentence if it couldn't be, or isn't the one that its record lists."""
    path = place_of(entry.directory, file)
    try:
        fd = open_file(path)
    except (DataError, FileNotFoundError, PermissionError) as error:
        return error.message if isinstance(error, DataError) else f"{path}: {error.strerror}"
    try:
        info = tarfile.TarInfo(f"{TOP}/models/{entry.directory.name}/{file.path}")
        info.size, info.mtime, info.mode = file.size, int(os.fstat(fd).st_mtime), 0o600
        source = _Source(fd, file.size, more)
        archive.addfile(info, source)
        whole = source.digest.hexdigest() == file.blake3 and not os.read(fd, 1)
        return "" if whole else f"{path} is not the file that its record lists"
    finally:
        os.close(fd)


class _Source(io.RawIOBase):
    """A file as tarfile reads it: as long as its header says, whatever happens to it."""

    def __init__(self, fd: int, size: int, more: Callable[[int], None]) -> None:
        self._fd = fd
        self._left = size
        self._more = more
        self.digest = blake3()

    def read(self, size: int = -1) -> bytes:
        wanted = min(size, self._left)
        data = os.read(self._fd, wanted) or bytes(wanted)
        while len(data) < wanted:
            data += os.read(self._fd, wanted - len(data)) or bytes(wanted - len(data))
        self._left -= wanted
        self.digest.update(data)
        self._more(wanted)
        return data


def _text(tape: Tape, members: Iterator[tarfile.TarInfo], name: str, limit: int) -> bytes:
    member = next(members, None)
    if member is None or member.name != f"{TOP}/{name}" or not member.isreg():
        raise DataError(what="the archive", why=f"it is no backup: it lacks {name}")
    if member.size > limit:
        raise DataError(what=name, why=f"it has {member.size} bytes, more than the {limit} allowed")
    source = tape.content(member)
    return b"".join(iter(lambda: source.read(_PIECE), b""))


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
        out.flush()
        sync_file(out.fileno())
    if digest.hexdigest() == file.blake3:
        return True
    target.unlink()
    return False
