"""A folder as an object store: the embedded default, and for a lab with a big disk enough.

::

    <root>/
      key                    signs tickets, for the owner's eyes alone
      objects/<key>          what is there, whole
      arriving/     contents in one piece, before they were compared
      uploads/<32 hex>/
        upload               which object, how large
        lock                 shared by who writes a part, exclusive to who completes
        data                 the whole, its room taken; part n is at its place in it
        00001.lock           held by who writes part 1
        00001                part 1 is here: its size and ETag

A part counts once its bytes were compared with the announced checksum and are on
the disk; only then its mark is written. Its ETag is its SHA-256, or its BLAKE3 where
a CRC32C was announced: for that others can be made. Completing is one rename of what
has the ETags that are named: nothing is copied. Several processes of one host, or of
several where the file system has locks, may serve one folder.

A content in one piece is compared in the same way before it gets its name.

Parts and contents come in through :meth:`FolderStore.receive` and objects go out through
:meth:`FolderStore.open`, both for the holder of a ticket
(:mod:`sleap_rtc.storage.tickets`), which the server's own endpoint takes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import msgspec
from loguru import logger

from sleap_rtc.errors import (
    AlreadyExists,
    Busy,
    Damaged,
    DataError,
    UnknownUpload,
    UnsafePath,
)
from sleap_rtc.files.beneath import open_file
from sleap_rtc.files.durable import (
    TEMPORARY,
    disk_errors,
    make_directory,
    sync_directory,
    sync_file,
    write_new,
)
from sleap_rtc.files.space import check_space, reserve
from sleap_rtc.storage.checksums import QUICK
from sleap_rtc.storage.folder_refusals import refusals
from sleap_rtc.storage.folder_writers import PartWriter, WholeWriter, locked, mark_at
from sleap_rtc.storage.objects import (
    PART_SECONDS,
    Checksum,
    Content,
    Part,
    SignedRequest,
    StoredObject,
    StoredPart,
    Upload,
    check_key,
    check_parts,
    check_sizes,
    check_there,
    of_their_size,
)
from sleap_rtc.storage.tickets import Ticket, expiry, seal, unseal

UPLOAD_SECONDS: Final = 86_400.0
"""Seconds after its last part that an upload is given up."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEEP_FREE: Final = 64 * 1024 * 1024
"""Bytes that an upload leaves on the disk, for marks and everything else there."""


class OpenObject:
    """An object that is open for reading; as a context manager it is closed at the end.

    Attributes:
        fd: Open for reading; what replaces the object meanwhile doesn't change it.
        about: What it is.
    """

    def __init__(self, fd: int, about: StoredObject) -> None:
        self.fd = fd
        self.about = about

    def read(self, size: int, offset: int) -> bytes:
        """Some bytes of it, one or more of as many as are asked for.

        Args:
            size: How many; more than 0.
            offset: Where they begin.

        Raises:
            Damaged: The disk can't read them any more, or it ends before.
            StorageUnreachable: The disk fails otherwise.
        """
        key = self.about.key
        with refusals(f"read {key}", reads=key):
            data = os.pread(self.fd, size, offset)
        if not data:
            raise Damaged(what=key, why=f"it ends before its {self.about.size} bytes")
        return data

    def close(self) -> None:
        """Close it; twice is once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FolderStore:
    """A folder as an :class:`~sleap_rtc.storage.objects.ObjectStore`. For many threads.

    Args:
        root: The folder; made when it isn't there.
        base_url: Where the server's endpoint takes tickets, without a slash at the end.
        clock: The time in UTC.

    Raises:
        OutOfSpace: The folder can't be made.
        PathNotPermitted: This user may not write there.
    """

    def __init__(
        self,
        root: Path,
        *,
        base_url: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects = root / "objects"
        self._uploads = root / "uploads"
        self._arriving = root / "arriving"
        self._root = root
        self._base_url = base_url
        self._clock = clock
        make_directory(self._objects)
        make_directory(self._uploads)
        make_directory(self._arriving)
        self._key = _key(root / "key")

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self._root)

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key."""
        try:
            with self.open(key) as found:
                return found.about
        except FileNotFoundError:
            return None

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload, whose room on the disk is taken at once."""
        check_key(key)
        check_sizes(size, part_size)
        upload = Upload(
            key=key,
            id=secrets.token_hex(16),
            size=size,
            part_size=part_size,
            checksum=checksum or ("crc32c" if QUICK else "sha256"),
        )
        folder = self._uploads / upload.id
        with refusals(f"begin an upload to {key}"), disk_errors(folder / "data", need=size):
            check_space(self._uploads, size + _KEEP_FREE)
            folder.mkdir()
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(folder / "data", flags, 0o666)
                try:
                    reserve(fd, size)
                    sync_file(fd)
                finally:
                    os.close(fd)
                (folder / "lock").touch()
                write_new(folder / "upload", msgspec.json.encode(upload))
                sync_directory(self._uploads)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return upload

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts; a token pins each part's length and checksum."""
        check_parts(upload, parts)
        return [
            self._signed(
                _ticket(upload, part, expiry(self._clock(), seconds)),
                {"content-length": str(part.size)},
            )
            for part in parts
        ]

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that are here."""
        with refusals(f"list the parts of {upload.key}"):
            folder = self._folder(upload.id, upload.key)
            found = []
            for path in sorted(folder.iterdir()):
                mark = mark_at(path) if path.name.isdigit() else None
                if mark is not None:
                    found.append(mark.part(int(path.name)))
            return found

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts, by one rename."""
        check_parts(upload, parts, every=True)
        with refusals(f"complete {upload.key}"), contextlib.ExitStack() as held:
            try:
                folder = self._folder(upload.id, upload.key)
                what = f"The upload to {upload.key}"
                held.enter_context(locked(folder / "lock", fcntl.LOCK_EX, what=what))
                there = self.parts(upload)
            except (UnknownUpload, FileNotFoundError):
                return self._done(upload)
            check_there(upload, parts, there)
            target = self._objects / upload.key
            with disk_errors(target), self._placing(upload.key):
                make_directory(target.parent)
                with contextlib.suppress(FileNotFoundError):  # done, but for the cleaning up
                    (folder / "data").rename(target)
                sync_directory(target.parent)
            done = self._done(upload)
            shutil.rmtree(folder, ignore_errors=True)
            return done

    def abort(self, upload: Upload) -> None:
        """Give an upload up."""
        what = f"The upload to {upload.key}"
        with (
            refusals(f"give up the upload to {upload.key}"),
            contextlib.suppress(UnknownUpload, FileNotFoundError),
        ):
            folder = self._folder(upload.id, upload.key)
            with locked(folder / "lock", fcntl.LOCK_EX, what=what):
                shutil.rmtree(folder, ignore_errors=True)

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece; none for those that are here."""
        found = [None if replacing else self.head(each.key) for each in contents]
        return [
            self.content_request(each, replacing=replacing)
            if there is None or there.size != each.size
            else None
            for each, there in zip(contents, found, strict=True)
        ]

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is here of contents that were sent."""
        return of_their_size(contents, self.heads([each.key for each in contents]))

    def content_request(
        self,
        content: Content,
        *,
        blake3: str = "",
        replacing: bool = False,
        seconds: int = PART_SECONDS,
    ) -> SignedRequest:
        """A request that sends a content in one piece; a token pins length and hashes."""
        ticket = Ticket(
            method="PUT",
            key=check_key(content.key),
            expires=int(expiry(self._clock(), seconds).timestamp()),
            size=content.size,
            sha256=content.sha256,
            blake3=blake3,
            replacing=replacing,
        )
        return self._signed(ticket, {"content-length": str(content.size)})

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is here under each of many keys."""
        return [self.head(key) for key in keys]

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object, whole or in ranges."""
        expires = int(expiry(self._clock(), seconds).timestamp())
        return self._signed(Ticket(method="GET", key=check_key(key), expires=expires), {})

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that read many objects."""
        return [self.download_request(key, seconds=seconds) for key in keys]

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet."""
        path = self._objects / check_key(key)
        with refusals(f"create {key}"), self._placing(key):
            make_directory(path.parent)
            return write_new(path, data)

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object; None when there is none."""
        try:
            found = self.open(key)
        except FileNotFoundError:
            return None
        with (
            found,
            refusals(f"read {key}", reads=key),
            open(found.fd, "rb", closefd=False) as file,
        ):
            data = file.read(limit + 1)
        if len(data) > limit:
            raise DataError(what=key, why=f"it has more than the {limit} bytes allowed")
        return data

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``."""
        for key in _walk(self._objects, "", prefix):
            found = self.head(key)
            if found is not None:
                yield found

    def delete(self, key: str) -> None:
        """Remove an object; one that isn't there is no error."""
        path = self._objects / check_key(key)
        with refusals(f"delete {key}"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync_directory(path.parent)

    def ticket(self, token: str, *, method: str) -> Ticket:
        """What the holder of a token may do.

        Raises:
            NotPermitted: The token isn't ours, is for another method, or has expired.
        """
        return unseal(token, self._key, method=method, now=self._clock())

    def open(self, key: str) -> OpenObject:
        """Open an object for reading.

        Raises:
            FileNotFoundError: There is none.
            StorageRefused: The server's user may not read it.
            StorageUnreachable: The disk fails.
        """
        try:
            with refusals(f"open {key}"):
                fd = open_file(self._objects / check_key(key))
        except UnsafePath as error:
            logger.debug("{}", error)
            raise FileNotFoundError(errno.ENOENT, "there is no such object", key) from None
        found = os.fstat(fd)
        # Another content is another file, so this changes when the content does.
        etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
        about = StoredObject(key=key, size=found.st_size, etag=etag, modified=modified)
        return OpenObject(fd, about)

    def receive(self, ticket: Ticket) -> PartWriter | WholeWriter:
        """Take a part, or a content in one piece, for the holder of a ticket.

        Raises:
            UnknownUpload: It expired, was completed or given up.
            Busy: Somebody is sending the same part, or the upload is being completed.
            AlreadyExists: The content is here, and isn't to be replaced.
            OutOfSpace: There is no room for it.
            StorageRefused: The server's user may not write there.
        """
        with refusals(f"take {ticket.what}"):
            if ticket.upload:
                return PartWriter(self._folder(ticket.upload, ticket.key), ticket)
            check_space(self._arriving, ticket.size + _KEEP_FREE)
            with self._placing(ticket.key):
                return WholeWriter(self._objects / ticket.key, ticket, arriving=self._arriving)

    def sweep(
        self, *, seconds: float = UPLOAD_SECONDS, objects: tuple[str, float] | None = None
    ) -> int:
        """Give up uploads for which nothing came for a while, and remove objects that are old.

        Args:
            seconds: That nothing came.
            objects: Prefix of the objects that are temporary, and the seconds that they stay.

        Returns:
            How many uploads and objects went.
        """
        gone = 0
        now = time.time()  # the files' own times are compared, whatever clock is handed in
        for folder in self._uploads.iterdir():
            try:
                if now - folder.stat().st_mtime < seconds:
                    continue
                with locked(folder / "lock", fcntl.LOCK_EX, what="An upload"):
                    shutil.rmtree(folder, ignore_errors=True)
                gone += 1
            except Busy:
                continue
            except FileNotFoundError:  # being begun, or half removed by a process that was killed
                shutil.rmtree(folder, ignore_errors=True)
        for path in self._arriving.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime >= seconds:
                    path.unlink()
        if objects is not None:
            prefix, age = objects
            for found in list(self.keys(prefix)):
                if found.modified is not None and now - found.modified.timestamp() >= age:
                    self.delete(found.key)
                    gone += 1
        return gone

    def _folder(self, upload: str, key: str) -> Path:
        """The folder of an upload that is under way."""
        folder = self._uploads / upload
        try:
            if _ID.fullmatch(upload) is None:
                raise UnknownUpload(key=key)
            began = msgspec.json.decode((folder / "upload").read_bytes(), type=Upload)
        except (FileNotFoundError, msgspec.DecodeError):
            raise UnknownUpload(key=key) from None
        if began.key != key:
            raise UnknownUpload(key=key)
        return folder

    def _done(self, upload: Upload) -> StoredObject:
        found = self.head(upload.key)
        if found is None or found.size != upload.size:
            raise UnknownUpload(key=upload.key)
        return found

    def _signed(self, ticket: Ticket, headers: dict[str, str]) -> SignedRequest:
        return SignedRequest(
            method=ticket.method,
            url=f"{self._base_url}/{seal(ticket, self._key)}",
            headers=headers,
            expires=datetime.fromtimestamp(ticket.expires, UTC),
        )

    @contextlib.contextmanager
    def _placing(self, key: str) -> Iterator[None]:
        """Say clearly that a name is a folder of other objects, or that an object is in its way."""
        try:
            yield
        except (NotADirectoryError, FileExistsError, IsADirectoryError):
            raise AlreadyExists(what=f"An object whose key begins or goes on as {key}") from None


def _ticket(upload: Upload, part: Part, expires: datetime) -> Ticket:
    """What may be sent for a part."""
    ticket = Ticket(
        method="PUT",
        key=upload.key,
        expires=int(expires.timestamp()),
        upload=upload.id,
        number=part.number,
        size=part.size,
    )
    checksum = part.pinned_by(upload.checksum)
    if upload.checksum == "crc32c":
        return msgspec.structs.replace(ticket, crc32c=checksum)
    return msgspec.structs.replace(ticket, sha256=checksum)


def _key(path: Path) -> bytes:
    """The key that signs tickets, made once for all processes."""
    write_new(path, secrets.token_bytes(32), mode=0o600)
    key = path.read_bytes()
    if len(key) != 32:
        raise Damaged(what=str(path), why="it is no key; remove it, and links made so far end")
    return key


def _walk(folder: Path, above: str, prefix: str) -> Iterator[str]:
    """Keys below a folder that begin with a prefix."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            key = above + entry.name
            if entry.name.startswith(TEMPORARY):
                continue
            if not entry.is_dir(follow_symlinks=False):
                if key.startswith(prefix):
                    yield key
            elif f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/"):
                yield from _walk(folder / entry.name, f"{key}/", prefix)
