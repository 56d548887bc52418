"""Unpacking archives that may have been made to do harm.

Nothing is written outside the folder, no link, device or pipe is made, and
what is written is counted while it is written, whatever the archive says of
itself: in bytes, in files, and against the size of the archive (a bomb).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import os
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol

from sleap_rtc.domain.packages import check_path
from sleap_rtc.errors import Damaged, DataError, SleapRtcError, UnsafePath
from sleap_rtc.files.durable import disk_errors
from sleap_rtc.files.space import free_space
from sleap_rtc.files.validation import safe_name
from sleap_rtc.library.inspection.content import Content
from sleap_rtc.library.inspection.zips import check_end
from sleap_rtc.library.tapes import PACKED, Tape, unpacked

MAX_FILES: Final = 20_000
FREE_RATIO: Final = 1 << 30
"""Bytes that any archive may unpack to."""
MAX_RATIO: Final = 50
"""Bytes per byte of the archive beyond that: weights hardly shrink, and pictures don't."""
MAX_MEMBERS: Final = 100_000
"""Files and folders that are met in a tar: each has a header that is read."""
KEPT_FREE: Final = 256 * 1024 * 1024

_PIECE: Final = 1 << 20

Progress = Callable[[int], None]
"""Told of the bytes that were just written; what it raises ends the unpacking."""

_FAULTS: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile),
    *(EOFError, ValueError, NotImplementedError, RuntimeError, OverflowError),
)


def kind_of(path: Path) -> str | None:
    """``zip`` or ``tar``, by content; None for anything else.

    A zip may also be a file of weights; whoever asks has looked at that before.
    """
    with path.open("rb") as file:
        head = file.read(512)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return "zip"
        if head.startswith(PACKED):
            file.seek(0)
            with contextlib.suppress(OSError, *_FAULTS):
                head = unpacked(file).read(512)
    try:
        tarfile.TarInfo.frombuf(head.ljust(512, b"\0"), "utf-8", "surrogateescape")
    except tarfile.TarError:
        return None
    return "tar"


def unpack(path: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Unpack an archive into an empty folder.

    Args:
        path: The archive.
        folder: Where to; on an error it may hold a part.
        progress: Told of what is written.

    Raises:
        DataError: It isn't an archive, was cut, is encrypted, holds links or devices, or unpacks to
            far more than it is.
        UnsafePath: A path in it would leave the folder, or stands twice in it.
        OutOfSpace: There is no room.
    """
    size = path.stat().st_size
    room = max(free_space(folder) - KEPT_FREE, 0)
    counter = _Counter(path, most=FREE_RATIO + size * MAX_RATIO, room=room, progress=progress)
    try:
        with path.open("rb") as file:
            if kind_of(path) == "zip":
                check_end(Content(file.fileno(), path.name))
                _unzip(file, folder, counter)
            else:
                _untar(file, folder, counter)
    except SleapRtcError:
        raise
    except (OSError, *_FAULTS) as error:
        why = f"it can't be unpacked ({str(error)[:100] or type(error).__name__})"
        raise Damaged(what=str(path), why=why) from None


class _Counter:
    """Counts what is written, and says when it is too much."""

    def __init__(self, path: Path, *, most: int, room: int, progress: Progress | None) -> None:
        self.path = path
        self._most = most
        self._room = room
        self._progress = progress
        self._written = 0
        self._passed = 0
        self._files = 0
        self._met = 0
        self._names: set[str] = set()

    def enter(self, name: str) -> str | None:
        """The path under which a file is written; None for one that is left out.

        Raises:
            UnsafePath: It is refused, or was there already.
            DataError: There are too many.
        """
        self._files += 1
        if self._files > MAX_FILES:
            raise DataError(what=str(self.path), why=f"it has more than {MAX_FILES:,} files")
        plain = name.removeprefix("./")
        if plain.startswith("/") or ".." in plain.split("/") or "\\" in plain:
            raise UnsafePath(path=name[:120], why="it would leave the folder", hint=_HINT)
        if any(part.startswith((".", "__MACOSX")) for part in plain.split("/")):
            return None  # what file managers add; nothing of a model
        safe = check_path("/".join(safe_name(part) for part in plain.split("/") if part))
        folded = unicodedata.normalize("NFC", safe).casefold()
        if folded in self._names:
            raise UnsafePath(path=name[:120], why="it is in the archive twice", hint=_HINT)
        self._names.add(folded)
        return safe

    def meet(self) -> None:
        """Count a member of whatever kind.

        Raises:
            DataError: There are too many.
        """
        self._met += 1
        if self._met > MAX_MEMBERS:
            why = f"it has more than {MAX_MEMBERS:,} files and folders"
            raise DataError(what=str(self.path), why=why)

    def count(self, more: int) -> None:
        """Count bytes before they are written.

        Raises:
            DataError: Too many for such an archive.
            OutOfSpace: Too many for the disk.
        """
        self._written += more
        if self._written > self._most:
            raise _bomb(self.path)
        if self._written > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._progress is not None:
            self._progress(more)

    def pass_over(self, more: int) -> None:
        """Count bytes that were unpacked to be read or skipped.

        Raises:
            DataError: Too many for such an archive.
        """
        self._passed += more
        if self._passed > 2 * self._most:
            raise _bomb(self.path)


def _bomb(path: Path) -> DataError:
    why = "it unpacks to far more than a model of its size would (an archive bomb?)"
    return DataError(what=str(path), why=why, hint="Unpack it yourself, and look.")


_HINT: Final = "Nothing was imported. Ask whoever made it for another archive."


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _write(source: _Reads, target: Path, counter: _Counter) -> None:
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            while data := source.read(_PIECE):
                counter.count(len(data))
                out.write(data)


def _unzip(file: IO[bytes], folder: Path, counter: _Counter) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.endswith("/"):  # its own question fails of an empty name
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise _not_a_file(member.filename)
            if member.flag_bits & 1:
                raise DataError(what=str(counter.path), why="it is encrypted")
            name = counter.enter(member.filename)
            if name is not None:
                with archive.open(member) as source:
                    _write(source, folder / name, counter)


def _untar(file: IO[bytes], folder: Path, counter: _Counter) -> None:
    tape = Tape(file, passed=counter.pass_over)
    for member in tape.members():
        counter.meet()
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise _not_a_file(member.name)
        name = counter.enter(member.name)
        if name is None:
            continue
        _write(tape.content(member), folder / name, counter)
        if (folder / name).stat().st_size != member.size:
            raise EOFError("it ends too early")
    tape.finish()


def _not_a_file(name: str) -> UnsafePath:
    why = "it is a link, a device or a file with holes, which no model needs"
    return UnsafePath(path=name[:120], why=why, hint=_HINT)
