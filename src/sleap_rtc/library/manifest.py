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
with one says nothing about the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from sleap_rtc.domain import values
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.errors import DataError, NewerFormat
from sleap_rtc.library.aliases import Alias
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.finder import Unreadable

NAME: Final = "manifest.json"
VERSION: Final = "2.0"
MAX_BYTES: Final = 512 * 1024 * 1024
"""Bytes of the largest manifest that is read: a hundred thousand models have about 300 MB."""
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
        models: Id → record, JSON.
        aliases: Alias → id, or ids of a pair.
    """

    version: str
    as_of: datetime | None
    models: dict[str, msgspec.Raw]
    aliases: dict[str, msgspec.Raw]


def write(
    file: BinaryIO,
    entries: Iterable[Entry | Unreadable],
    aliases: Iterable[Alias],
    *,
    as_of: datetime,
) -> Written:
    """Write a manifest, model after model.

    Args:
        file: Takes it.
        entries: The models.
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


def read(path: Path) -> Contents:
    """Read a manifest's outline.

    Raises:
        DataError: Too large, not JSON, or not a manifest.
        NewerFormat: A later sleap-rtc wrote it.
        FileNotFoundError: There is none.
    """
    return parse(_read_bounded(path), what=str(path))


def parse(data: bytes, *, what: str) -> Contents:
    """The outline in a manifest's bytes; raises as :func:`read`."""
    try:
        outline = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(what=what, why=f"it is not a registry's JSON ({error})") from None
    version = _field(outline, "version", str, "", what)
    major = version.partition(".")[0]
    if not (major.isascii() and major.isdigit() and len(major) <= 6):
        raise DataError(what=what, why=f"its version {version[:40]!r} is none")
    if int(major) > int(VERSION.partition(".")[0]):
        raise NewerFormat(what=what, found=version[:40], known="2.x")
    models = _field(outline, "models", dict[str, msgspec.Raw], {}, what)
    aliases = _field(outline, "aliases", dict[str, msgspec.Raw], {}, what)
    for field, found in (("models", models), ("aliases", aliases)):
        if len(found) > MAX_MODELS:
            why = f"it has {len(found):,} {field}, more than the {MAX_MODELS:,} allowed"
            raise DataError(what=what, why=why)
    as_of = _field(outline, "as_of", datetime | None, None, what)
    return Contents(version=version, as_of=as_of, models=models, aliases=aliases)


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


def _field(outline: dict[str, msgspec.Raw], name: str, kind: Any, default: Any, what: str) -> Any:
    raw = outline.get(name)
    if raw is None:
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(what=what, why=f"its {name!r} is not as it should be ({error})") from None


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(what=str(path), why=f"it has more than {MAX_BYTES >> 20} MiB")
    return data


def _string(text: str) -> bytes:
    return msgspec.json.encode(text)


def _indented(data: bytes, *, by: int = 4) -> bytes:
    """JSON as people read it, its lines after the first moved right. Strings hold no newline."""
    return msgspec.json.format(data, indent=2).replace(b"\n", b"\n" + b" " * by)
