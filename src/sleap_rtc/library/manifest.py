"""The portable form of a library: one JSON file with every record and alias (REG-8).

::

    {
      "version": "2.0",
      "as_of": "2026-03-01T12:00:00Z",
      "models": {"3f2a9c01": {… the record …}, …},
      "aliases": {"fly": "3f2a9c01", "fly-pair": ["3f2a9c01", "77aa01bc"], …}
    }

``manifest.json`` beside the models is written when a process that changed
something ends, and when a long one is idle: it may lag, and nothing is decided
by it. It is read only when a person asks for that. Version 1 is the public
sleap-rtc's own registry, which `migration` reads.

Reading is bounded and typed, and each record is looked at alone: what is wrong
with one says nothing about the others. Of a million models no more is held in
memory than their ids, and where their records stand.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from sleap_rtc.domain import values
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.domain.units import format_bytes
from sleap_rtc.errors import DataError, NewerFormat
from sleap_rtc.library.aliases import Alias
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.outline import Parts, Read, Scanner, reader
from sleap_rtc.library.telling import Told, unseen

NAME: Final = "manifest.json"
VERSION: Final = "2.0"
MAX_BYTES: Final = 16 * 1024**3
"""Bytes of the largest manifest that is read: a million models have about 3 GB."""
MAX_MODELS: Final = 1_000_000
_BEGINNING: Final = re.compile(rb'\{\s*"version":\s*"2\.')


class Written(msgspec.Struct, frozen=True):
    """What a manifest was written from.

    Attributes:
        models: Number of models in it.
        aliases: Number of aliases.
        unreadable: Models that are not in it, since their records can't be read.
    """

    models: int
    aliases: int
    unreadable: tuple[Unreadable, ...]


class Contents(msgspec.Struct, frozen=True):
    """A manifest as it was read; its records are not yet looked at.

    Attributes:
        version: ``major.minor``.
        as_of: When it was true; None where it doesn't say so.
        models: Id → record, JSON; each is read when it is asked for, from what was opened.
        aliases: Alias → id, or ids of a pair; likewise.
    """

    version: str
    as_of: datetime | None
    models: Mapping[str, msgspec.Raw]
    aliases: Mapping[str, msgspec.Raw]


def write(
    file: IO[bytes],
    entries: Iterable[Entry | Unreadable],
    aliases: Iterable[Alias],
    *,
    as_of: datetime,
) -> Written:
    """Write a manifest, model after model.

    Args:
        file: Takes it.
        entries: The models, no two with one id: see :func:`once`.
        aliases: The aliases; those of models that can't be read are written too.
        as_of: The time at which the reading began, UTC.
    """
    unreadable: list[Unreadable] = []
    models = 0
    file.write(b"{\n")
    file.write(b'  "version": %s,\n' % msgspec.json.encode(VERSION))
    file.write(b'  "as_of": %s,\n' % msgspec.json.encode(as_of))
    file.write(b'  "models": {')
    for entry in entries:
        if isinstance(entry, Unreadable):
            unreadable.append(entry)
            continue
        record = _indented(values.encode(entry.record))
        file.write(b"%s\n    %s: %s" % (b"," if models else b"", _string(entry.id), record))
        models += 1
    file.write(b"\n  },\n" if models else b"},\n")
    named = {a.name: a.models[0] if len(a.models) == 1 else a.models for a in aliases}
    file.write(b'  "aliases": %s\n}\n' % _indented(msgspec.json.encode(named), by=2))
    return Written(models=models, aliases=len(named), unreadable=tuple(unreadable))


def once(found: Iterable[Entry | Unreadable]) -> Iterator[Entry | Unreadable]:
    """The same models; of two with one id the later one is told of as left out.

    An id is given once, but a person may copy a directory under the name of another type.
    """
    directories: dict[str, str] = {}
    for one in found:
        if isinstance(one, Unreadable):
            yield one
            continue
        first = directories.setdefault(one.id, one.record.model_type)
        if first == one.record.model_type:
            yield one
        else:
            why = f"it has the id of {first}_{one.id}, and two models with one id can't be kept"
            yield Unreadable(directory=one.directory.name, why=why)


def read(path: Path, *, told: Told = unseen) -> Contents:
    """A manifest's outline; its file may be replaced meanwhile.

    Args:
        path: The file.
        told: Told of the bytes that were looked through.

    Raises:
        DataError: Too large, not JSON, or not a manifest.
        NewerFormat: A later sleap-rtc wrote it.
        FileNotFoundError: There is none.
    """
    with path.open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return opened(file, what=str(path), told=told)
        with tempfile.TemporaryFile() as copy:  # a pipe, of which nothing is there twice
            shutil.copyfileobj(file, copy)
            copy.flush()
            return opened(copy, what=str(path), told=told)


def opened(file: IO[bytes], *, what: str, told: Told = unseen) -> Contents:
    """The outline of an open file, which may be closed afterwards; raises as :func:`read`."""
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        raise DataError(what=what, why=f"it has more than {format_bytes(MAX_BYTES)}")
    bytes_of = reader(file.fileno())

    def watched(offset: int, length: int) -> bytes:
        told(min(offset, size), size)
        return bytes_of(offset, length)

    contents = _outline(watched, bytes_of, what)
    told(size, size)
    return contents


def parse(data: bytes, *, what: str) -> Contents:
    """The outline in a manifest's bytes; raises as :func:`read`."""

    def bytes_of(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return _outline(bytes_of, bytes_of, what)


def _outline(scan: Read, read: Read, what: str) -> Contents:
    """The outline of a document, which is scanned from its beginning, and read anywhere later."""
    scanner = Scanner(scan, what=what)
    parts = {field: Parts(read) for field in ("models", "aliases")}
    said: dict[str, bytes] = {}
    for field in scanner.members():
        if field in parts:
            parts[field] = _parts(scanner, read, field, what)
        elif field in ("version", "as_of"):
            said[field] = scanner.content()
        else:
            scanner.place()
    scanner.finish()
    version = _field(said, "version", str, "", what)
    major = version.partition(".")[0]
    if not (major.isascii() and major.isdigit() and len(major) <= 6):
        raise DataError(what=what, why=f"its version {version[:40]!r} is none")
    if int(major) > int(VERSION.partition(".")[0]):
        raise NewerFormat(what=what, found=version[:40], known="2.x")
    as_of = _field(said, "as_of", datetime | None, None, what)
    return Contents(version=version, as_of=as_of, models=parts["models"], aliases=parts["aliases"])


def _parts(scanner: Scanner, read: Read, field: str, what: str) -> Parts:
    if not scanner.at_object():
        raise DataError(what=what, why=f"its {field!r} is not as it should be (it is no object)")
    parts = Parts(read)
    for name in scanner.members():
        parts.note(name, *scanner.place())
        if len(parts) > MAX_MODELS:
            raise DataError(what=what, why=f"it has more than the {MAX_MODELS:,} {field} allowed")
    return parts


def record_of(name: str, raw: msgspec.Raw | bytes) -> ModelRecord:
    """The record under an id in a manifest.

    Raises:
        DataError: It isn't one, or is another model's, or deleted.
    """
    what = f"model {name[:80]!r}"
    record = values.decode(ModelRecord, bytes(raw), what=what)
    if record.id != name:
        raise DataError(what=what, why=f"its record is of {record.id}")
    if record.deleted_at is not None:
        raise DataError(what=what, why="it was deleted there")
    return record


def ids_of(raw: msgspec.Raw) -> tuple[str, ...]:
    """The ids that an alias in a manifest names.

    Raises:
        DataError: Neither an id nor a list of ids.
    """
    try:
        ids = msgspec.json.decode(raw, type=str | tuple[str, ...])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(what="alias", why=str(error)) from None
    return (ids,) if isinstance(ids, str) else ids


def is_ours(path: Path) -> bool:
    """Whether a file begins as a manifest of this form does, so that it may be written anew."""
    try:
        with path.open("rb") as file:
            return _BEGINNING.match(file.read(64)) is not None
    except OSError:
        return False


def _field(said: dict[str, bytes], name: str, kind: Any, default: Any, what: str) -> Any:
    raw = said.get(name)
    if raw is None:
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(what=what, why=f"its {name!r} is not as it should be ({error})") from None


def _string(text: str) -> bytes:
    return msgspec.json.encode(text)


def _indented(data: bytes, *, by: int = 4) -> bytes:
    """JSON as people read it, its lines after the first moved right. Strings hold no newline."""
    return msgspec.json.format(data, indent=2).replace(b"\n", b"\n" + b" " * by)
