"""SHA-256 of a model's files, for other systems that name content so (Hugging Face, W&B).

BLAKE3 is what the library works with; SHA-256 takes four times as long, so nothing
waits for it: it is computed when somebody needs it, beside BLAKE3 in the same pass,
which shows that it is that of the recorded file. It is kept in the record, where it
stays with the model, and is never computed twice.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from blake3 import blake3
from loguru import logger
from msgspec.structs import replace

from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.errors import Damaged, FilesMissing, SourceChanged
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.hashing import stamp_of
from sleap_rtc.library.checking import looks_like, place_of
from sleap_rtc.library.entries import Entry
from sleap_rtc.library.registry import Registry

_PIECE: Final = 1024 * 1024

Progress = Callable[[str, int], None]
"""Told of the file, and of the bytes of it that were just read; what it raises ends the work."""


def with_sha256(
    registry: Registry, entry: Entry, *, progress: Progress = lambda _path, _more: None
) -> Entry:
    """A model whose record has the SHA-256 of every file; what lacks is computed and recorded.

    What was computed is recorded file by file, so that an interrupted call goes on.

    Args:
        registry: The model's library.
        entry: The model.
        progress: Told of what is read.

    Returns:
        The model as its record is now.

    Raises:
        FilesMissing: A file isn't there.
        Damaged: A file isn't the one that the record lists.
        SourceChanged: A file changed while it was read.
        OSError: A file can't be read.
    """
    for file in entry.record.files:
        if file.sha256 is None:
            digest = _sha256(entry, file, progress)
            entry = registry.update(entry.id, _having(file, digest))
            logger.bind(model=entry.id, path=file.path).debug("a SHA-256 is recorded")
    return entry


def _having(file: ModelFile, digest: str) -> Callable[[ModelRecord], ModelRecord]:
    """The change of a record that notes a hash, if the file is still the same one."""

    def change(old: ModelRecord) -> ModelRecord:
        files = (
            replace(each, sha256=digest)
            if (each.path, each.size, each.blake3) == (file.path, file.size, file.blake3)
            else each
            for each in old.files
        )
        return replace(old, files=tuple(files))

    return change


def _sha256(entry: Entry, file: ModelFile, progress: Progress) -> str:
    if looks_like(entry.directory, file) == "missing":
        raise FilesMissing(name=entry.label, files=file.path)
    path = place_of(entry.directory, file)
    fd = open_file(path)
    try:
        return _read(fd, path, file, progress)
    finally:
        os.close(fd)


def _read(fd: int, path: Path, file: ModelFile, progress: Progress) -> str:
    stamp = stamp_of(fd)
    known, wanted = blake3(), hashlib.sha256()
    while piece := os.read(fd, _PIECE):
        known.update(piece)
        wanted.update(piece)
        progress(file.path, len(piece))
    if stamp_of(fd) != stamp:
        raise SourceChanged(path=str(path))
    if known.hexdigest() != file.blake3:
        raise Damaged(what=str(path), why="it isn't the file that its record lists")
    return wanted.hexdigest()
