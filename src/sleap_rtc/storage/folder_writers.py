"""What comes in at a folder that is a store: a part of an upload, or a content in one piece.

Both compare what came with what was announced before it counts for anything; both
are context managers that keep nothing unless they are told to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

import msgspec
from blake3 import blake3

from sleap_rtc.errors import AlreadyExists, Busy, Damaged, DataError, UnknownUpload
from sleap_rtc.files.durable import (
    disk_errors,
    make_directory,
    sync_directory,
    sync_file,
    write_replacing,
    written_whole,
)
from sleap_rtc.storage.checksums import new_digest
from sleap_rtc.storage.folder_refusals import refusals
from sleap_rtc.storage.objects import Sha256, StoredPart, Upload
from sleap_rtc.storage.tickets import Ticket


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """That a part is here.

    Attributes:
        size: Bytes.
        sha256: Of its content, where that was announced.
        etag: What its sender was told, where it isn't that.
    """

    size: int
    sha256: Sha256 | None = None
    etag: str = ""

    def part(self, number: int) -> StoredPart:
        """The part that it stands for."""
        etag = self.etag if self.sha256 is None else self.sha256.hex()
        return StoredPart(number=number, size=self.size, etag=etag, sha256=self.sha256)


class PartWriter:
    """Takes the bytes of one part, as a context manager. For one thread at a time.

    What is here already under the same SHA-256 isn't written again. Under the same CRC32C it may
    be another content, and what comes last counts.

    Args:
        folder: Of the upload.
        ticket: What may be sent.
    """

    def __init__(self, folder: Path, ticket: Ticket) -> None:
        self._ticket = ticket
        self._digest = new_digest("sha256" if ticket.crc32c is None else "crc32c")
        self._etag = None if ticket.crc32c is None else blake3()
        self._got = 0
        self._fd = -1
        self._mark = folder / f"{ticket.number:05}"
        self._locks = contextlib.ExitStack()
        what = f"Part {ticket.number} of the upload to {ticket.key}"
        try:
            self._locks.enter_context(locked(folder / "lock", fcntl.LOCK_SH, what=what))
            lock = self._mark.with_suffix(".lock")
            self._locks.enter_context(locked(lock, fcntl.LOCK_EX, what=what, make=True))
            there = mark_at(self._mark)
            self._there = self._etag is None and there is not None and there.sha256 == ticket.sha256
            began = msgspec.json.decode((folder / "upload").read_bytes(), type=Upload)
            self._offset = began.offset(ticket.number)
            if self._there:
                return
            if there is not None:
                # The mark goes first: it must never stand for bytes that are being replaced.
                self._mark.unlink()
                sync_directory(folder)
            self._fd = os.open(folder / "data", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._locks.close()
            raise UnknownUpload(key=ticket.key) from None
        except BaseException:
            self._locks.close()
            raise

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DataError: More than were announced.
            OutOfSpace: The disk is full.
        """
        if self._got + len(data) > self._ticket.size:
            why = f"it has more than the {self._ticket.size} bytes announced"
            raise DataError(what=f"part {self._ticket.number}", why=why)
        self._digest.update(data)
        if self._etag is not None:
            self._etag.update(data)
        if not self._there:
            with self._refusals(), disk_errors(self._mark, need=len(data)):
                rest, at = memoryview(data), self._offset + self._got
                while rest:
                    written = os.pwrite(self._fd, rest, at)
                    rest, at = rest[written:], at + written
        self._got += len(data)

    def commit(self) -> StoredPart:
        """Compare what came with what was announced, and keep it.

        Raises:
            Damaged: Other bytes came, or fewer; nothing is kept.
            OutOfSpace: The disk is full.
        """
        ticket = self._ticket
        announced = ticket.sha256 if ticket.crc32c is None else ticket.crc32c
        if self._got != ticket.size or self._digest.digest() != announced:
            why = f"{self._got} bytes came that aren't the {ticket.size} announced"
            raise Damaged(what=ticket.what, why=why)
        if self._etag is None:
            mark = Mark(size=ticket.size, sha256=ticket.sha256)
        else:
            mark = Mark(size=ticket.size, etag=self._etag.digest().hex())
        if not self._there:
            with self._refusals(), disk_errors(self._mark):
                sync_file(self._fd)
                write_replacing(self._mark, msgspec.json.encode(mark))
            self._there = True
        return mark.part(ticket.number)

    def close(self) -> None:
        """Let others send this part; twice is once."""
        fd, self._fd = self._fd, -1
        with self._locks, self._refusals():
            if fd >= 0:
                os.close(fd)

    def _refusals(self) -> AbstractContextManager[None]:
        return refusals(f"take {self._ticket.what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class WholeWriter:
    """Takes the bytes of a content in one piece. For one thread at a time.

    Args:
        path: Where the object will be.
        ticket: What may be sent.
        arriving: Folder for it until it was compared, on the same file system.

    Raises:
        AlreadyExists: It is here, and isn't to be replaced.
        OutOfSpace: The disk is full.
    """

    def __init__(self, path: Path, ticket: Ticket, *, arriving: Path) -> None:
        if not ticket.replacing and path.exists():
            raise AlreadyExists(what=ticket.key)
        self._ticket, self._path = ticket, path
        self._sha256, self._blake3 = hashlib.sha256(), blake3()
        self._got = 0
        make_directory(path.parent)
        self._placing = contextlib.ExitStack()
        self._file = self._placing.enter_context(
            written_whole(path, replacing=ticket.replacing, unfinished=arriving)
        )

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            DataError: More than were announced.
            OutOfSpace: The disk is full.
        """
        if self._got + len(data) > self._ticket.size:
            why = f"it has more than the {self._ticket.size} bytes announced"
            raise DataError(what=self._ticket.key, why=why)
        self._sha256.update(data)
        self._blake3.update(data)
        with self._refusals(), disk_errors(self._path, need=len(data)):
            self._file.write(data)
        self._got += len(data)

    def commit(self) -> StoredPart:
        """Compare what came with what was announced, and give it its name.

        Returns:
            What came, as the one part that it is.

        Raises:
            Damaged: Other bytes came, or fewer; nothing is kept.
            AlreadyExists: It came to be here meanwhile, and isn't to be replaced.
            OutOfSpace: The disk is full.
        """
        ticket, found = self._ticket, self._sha256.digest()
        same = found == ticket.sha256 and ticket.blake3 in ("", self._blake3.hexdigest())
        if self._got != ticket.size or not same:
            why = f"{self._got} bytes came that aren't the {ticket.size} announced"
            raise Damaged(what=ticket.key, why=why)
        try:
            with self._refusals():
                self._placing.close()
        except AlreadyExists:
            raise AlreadyExists(what=ticket.key) from None
        return StoredPart(number=1, size=ticket.size, etag=found.hex(), sha256=found)

    def close(self) -> None:
        """Forget what wasn't kept; twice is once."""
        discarded = _Discarded()
        with contextlib.suppress(_Discarded), self._refusals(), self._placing:
            raise discarded

    def _refusals(self) -> AbstractContextManager[None]:
        return refusals(f"take {self._ticket.what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Discarded(Exception):
    """What came isn't kept."""


@contextlib.contextmanager
def locked(path: Path, how: int, *, what: str, make: bool = False) -> Iterator[None]:
    """A lock on a file of an upload, which must still be there when it is held."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    with disk_errors(path):
        fd = os.open(path, flags, 0o666)
    try:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            raise Busy(what=what, by="") from None
        if os.fstat(fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the upload is gone", str(path))
        yield
    finally:
        os.close(fd)


def mark_at(path: Path) -> Mark | None:
    """What a mark says of its part; None where there is none, or a torn one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
