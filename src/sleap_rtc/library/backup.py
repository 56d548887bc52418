"""A whole library in one file: a tar archive that any tar can open.

::

    sleap-rtc/backup.json                    when, how many models and bytes, with links' contents?
    sleap-rtc/manifest.json                  every record and alias: see `manifest`
    sleap-rtc/models/centroid_3f2a9c01/…     the files that the records list, model by model

It is written in one pass, model after model: of all of them no more than their ids
is held in memory, and the manifest is in a file without a name meanwhile. What
reads it is `unpacking`.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, Final, Literal

import msgspec
from blake3 import blake3

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.values import Document, encode_pretty
from sleap_rtc.errors import AlreadyExists, DataError, UsageError
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.durable import TEMPORARY, disk_errors, written_whole
from sleap_rtc.library import layout, manifest, zstd
from sleap_rtc.library.checking import place_of
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry
from sleap_rtc.library.telling import Told, counted, unseen

TOP: Final = "sleap-rtc"
ENDINGS: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst")


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
        left_out: Models that could not be saved, or not with all their files, with a sentence each.
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
    moved: Told = unseen,
    told: Told = unseen,
) -> Saved:
    """Save a library; the file has its name only when it is whole.

    Args:
        registry: The library.
        path: The archive, by whose ending it is compressed.
        now: The time, UTC.
        contents: Whether the contents of linked files are saved too.
        replacing: Whether a file that is there is replaced.
        moved: Told of the bytes that were written.
        told: Told of the records that were read, before that.

    Raises:
        UsageError: The name ends otherwise, or with ``.zst`` where that can't be written.
        AlreadyExists: There is a file, and it isn't to be replaced.
        OutOfSpace: The disk is full; nothing is left.
    """
    mode = _mode(path)
    if not replacing and os.path.lexists(path):
        raise AlreadyExists(what=str(path))
    with disk_errors(path), spool(path.parent) as text:
        counts = _Counts(contents)
        of = sum(1 for _ in layout.names(registry.models_dir))
        entries = counts.of(manifest.once(counted(registry.walk(), of, told)))
        written = manifest.write(text, entries, registry.list_aliases(), as_of=now)
        text.flush()
        # What the manifest says is what is saved, though models may have changed meanwhile.
        records = manifest.opened(text, what=str(path)).models
        head = Head(
            made_at=now,
            models=written.models,
            size=counts.size,
            links="contents" if contents else "places",
        )
        done = 0

        def more(size: int) -> None:
            nonlocal done
            done += size
            moved(done, head.size)

        left_out = list(written.unreadable)
        with (
            written_whole(path, replacing=replacing) as out,
            _packed(path, out) as packed,
            tarfile.open(fileobj=packed, mode=mode, format=tarfile.PAX_FORMAT) as archive,
        ):
            _add(archive, "backup.json", io.BytesIO(encode_pretty(head)), now)
            _add(archive, "manifest.json", text, now)
            for name, raw in records.items():
                lacking = _add_files(archive, registry, (name, raw), contents, more)
                if lacking is not None:
                    left_out.append(lacking)
    return Saved(
        models=written.models,
        aliases=written.aliases,
        size=done,
        left_out=tuple(left_out),
        linked=counts.linked,
    )


class _Counts:
    """Counts what a backup will hold, while its manifest is written.

    Attributes:
        size: Bytes of the files in it.
        linked: Models of which files are linked to, and not in it.
    """

    def __init__(self, contents: bool) -> None:
        self._contents = contents
        self.size = 0
        self.linked = 0

    def of(self, found: Iterable[Entry | Unreadable]) -> Iterator[Entry | Unreadable]:
        """The same models."""
        for entry in found:
            if isinstance(entry, Entry):
                files = saved_files(entry.record, self._contents)
                self.size += expected_size(entry.record, self._contents)
                self.linked += len(files) < len(entry.record.files)
            yield entry


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


def saved_files(record: ModelRecord, contents: bool) -> list[ModelFile]:
    """The files of a model that are in a backup."""
    return [file for file in record.files if contents or not file.link]


def expected_size(record: ModelRecord, contents: bool) -> int:
    """Bytes of a model in a backup, as far as can be told: none if it lacks some of its files."""
    if record.status == "missing":  # its record lists terabytes, maybe, that are nowhere
        return 0
    return sum(file.size for file in saved_files(record, contents))


def spool(folder: Path) -> IO[bytes]:
    """A file without a name, in which a manifest is before it is in an archive, and afterwards."""
    return tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY)


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes], now: datetime) -> None:
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size = file.seek(0, os.SEEK_END)
    info.mtime, info.mode = int(now.timestamp()), 0o600
    file.seek(0)
    archive.addfile(info, file)


def _add_files(
    archive: tarfile.TarFile,
    registry: Registry,
    listed: tuple[str, msgspec.Raw],
    contents: bool,
    more: Callable[[int], None],
) -> Unreadable | None:
    """Add a model's files; why one of them couldn't be added, if any couldn't."""
    try:
        record = manifest.record_of(*listed)
    except DataError as error:  # one that is too large, written with indents
        return Unreadable(directory=listed[0], why=error.message)
    directory = registry.models_dir / record.directory
    first, lacking = "", 0
    for file in saved_files(record, contents):
        why = _add_file(archive, directory, file, more)
        # It would remember all of them.
        archive.members = []  # type: ignore[attr-defined]
        lacking += bool(why)
        first = first or why
    if not lacking:
        return None
    others = f", and {lacking - 1:,} more of its files likewise" if lacking > 1 else ""
    return Unreadable(directory=directory.name, why=first + others)


def _add_file(
    archive: tarfile.TarFile, directory: Path, file: ModelFile, more: Callable[[int], None]
) -> str:
    """Add a file; a sentence if it couldn't be, or isn't the one that its record lists."""
    path = place_of(directory, file)
    try:
        fd = open_file(path)
    except (DataError, FileNotFoundError, PermissionError) as error:
        return error.message if isinstance(error, DataError) else f"{path}: {error.strerror}"
    try:
        info = tarfile.TarInfo(f"{TOP}/models/{directory.name}/{file.path}")
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
