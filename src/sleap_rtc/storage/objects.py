"""Object storage as the rest of sleap-rtc sees it: one seam, several stores.

A large file goes up in parts, and by nobody but who has it: the server says yes
and hands out signed requests, the client sends the bytes to wherever they lead::

    client                        server                         store
      │ begin(key, size) ───────────► begin ────────────────────────► │
      │ checksum of part n                                            │
      │ part_requests(n, checksum) ─► part_requests (signs, asks nobody)
      │ PUT part n ─────────────────────────────────────────────────► │
      │ ◄──────────────────────────────────── ETag of what it took ── │
      │ parts() ────────────────────► parts: what the store really has│
      │ complete(parts, ETags) ─────► complete: those, no others ────►│ object

What fits into one part goes in one piece, hundreds of them side by side::

    client                        server                         store
      │ hash each
      │ offer(contents) ────────────► which are there? links for the others
      │ PUT a whole content, exactly those bytes, unless it is there ─► object
      │ confirm(contents) ──────────► what the store really has ────► │

=====================================  ==========================================
:mod:`sleap_rtc.storage.s3`            S3, and whatever speaks its protocol
:mod:`sleap_rtc.storage.folder`        a folder; the server's own endpoint takes
                                       the bytes
the server's HTTP API, seen from       an :class:`UploadStore` as well, so that
a client                               the uploader can't tell
=====================================  ==========================================

A signed request is good for one object or one part with one length and one
checksum, until a time; it holds no secret that outlives it. For a content in one
piece that is its SHA-256. For a part it is the CRC32C where the store compares it:
other bytes can be made that have it, so whoever completes names the ETags that the
sender was told, and parts that somebody else sent are never among them (ADR 12).

Everything here blocks; a server calls it in threads. All of it may be called by
several at once.

Contents are stored under names made of their hash (`design.md`), so two who
upload the same file write the same bytes, whoever is first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import DataError, InvalidName, PartsMissing

MAX_PARTS: Final = 10_000
"""Parts of one upload, as S3 has it."""
MAX_OBJECT: Final = 5 << 40
"""Bytes of the largest object, as S3 has it: 5 TiB."""
MIN_PART: Final = 5 * BLOCK
"""Bytes that every part but the last must have, as S3 has it."""
MAX_PART: Final = 5 << 30
"""Bytes of the largest part, as S3 has it."""
MAX_SECONDS: Final = 7 * 86_400
"""Seconds that a signed request may be good for, as S3 has it."""
PART_SECONDS: Final = 3_600
"""Seconds that the request for a part is good for; a fresh one is asked for any time."""
MAX_KEY: Final = 512
SMALLEST_PARTS: Final = 16 * BLOCK
LARGEST_PARTS: Final = 100 * BLOCK

MAX_WHOLE: Final = SMALLEST_PARTS
"""Bytes of the largest content that goes in one piece."""

_KEY: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,199})*")
_ETAG: Final = re.compile(r"[!#-~]{1,256}")
_FEW: Final = 64
"""Parts that an upload has at least before they grow: enough to be sent side by side."""

Checksum = Literal["sha256", "crc32c"]
"""What pins the parts of an upload; both are strings that S3 knows as well."""
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""32 bytes; JSON has them in Base64, as S3's headers do."""
Crc32c = Annotated[bytes, Meta(min_length=4, max_length=4)]
"""The same of 4 bytes, the highest first."""
Etag = Annotated[str, Meta(max_length=256, pattern=r"\A[!#-~]*\Z")]
"""A store's mark of a content, without quotes."""
Key = Annotated[str, Meta(min_length=1, max_length=MAX_KEY)]
PartNumber = Annotated[int, Meta(ge=1, le=MAX_PARTS)]


class Upload(msgspec.Struct, frozen=True):
    """An upload that was begun.

    Attributes:
        key: Of the object that it will be.
        id: The store's own name for it.
        size: Bytes of the whole, 0 to `MAX_OBJECT`.
        part_size: Bytes of every part but the last.
        checksum: What pins its parts; uploads of versions that knew no other have SHA-256.
    """

    key: Key
    id: Annotated[str, Meta(min_length=1, max_length=2_048)]
    size: Annotated[int, Meta(ge=0, le=MAX_OBJECT)]
    part_size: Annotated[int, Meta(ge=1, le=MAX_PART)]
    checksum: Checksum = "sha256"

    @property
    def part_count(self) -> int:
        """Number of parts; an empty object has one, of no bytes."""
        return max(1, -(-self.size // self.part_size))

    def length(self, number: int) -> int:
        """Bytes of part ``number``, from 1."""
        return min(self.part_size, self.size - self.offset(number))

    def offset(self, number: int) -> int:
        """Where part ``number`` begins in the whole."""
        return (number - 1) * self.part_size


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part as its sender has it.

    Attributes:
        number: From 1.
        size: Bytes.
        sha256: Of its content, in an upload that is pinned by it.
        crc32c: The same of one that is pinned by that.
        etag: What the store answered when this sender sent it; empty before, and of senders of
            versions that didn't keep it.
    """

    number: PartNumber
    size: Annotated[int, Meta(ge=0, le=MAX_PART)]
    sha256: Sha256 | None = None
    crc32c: Crc32c | None = None
    etag: Etag = ""

    @classmethod
    def of(cls, upload: Upload, number: int, checksum: bytes) -> Part:
        """A part of an upload, with the checksum that pins it there."""
        size = upload.length(number)
        if upload.checksum == "crc32c":
            return cls(number=number, size=size, crc32c=checksum)
        return cls(number=number, size=size, sha256=checksum)

    def pinned_by(self, checksum: Checksum) -> bytes | None:
        """Its checksum of a kind; None where it isn't told."""
        return self.sha256 if checksum == "sha256" else self.crc32c

    def is_there(self, stored: StoredPart | None) -> bool:
        """Whether a store has this part, and no other in its place.

        Args:
            stored: What the store has under its number.
        """
        if stored is None or stored.size != self.size:
            return False
        if self.etag and self.etag != stored.etag:
            return False
        # Without an ETag only what pins the bytes themselves tells them from others.
        return bool(self.etag) if self.sha256 is None else stored.sha256 in (None, self.sha256)


class StoredPart(msgspec.Struct, frozen=True):
    """A part as the store has it.

    Attributes:
        number: From 1.
        size: Bytes.
        etag: The store's mark of its content, without quotes.
        sha256: Of its content; None where the store doesn't tell.
    """

    number: PartNumber
    size: Annotated[int, Meta(ge=0, le=MAX_PART)]
    etag: Annotated[str, Meta(max_length=256)]
    sha256: Sha256 | None = None


class Content(msgspec.Struct, frozen=True):
    """A content that goes in one piece, as its sender has it.

    Attributes:
        key: Of the object that it will be.
        size: Bytes, 0 to `MAX_WHOLE`.
        sha256: Of it.
    """

    key: Key
    size: Annotated[int, Meta(ge=0, le=MAX_WHOLE)]
    sha256: Sha256


class StoredObject(msgspec.Struct, frozen=True):
    """An object that is there, whole.

    Attributes:
        key: Its name.
        size: Bytes.
        etag: The store's mark of its content, without quotes: another content has another.
        modified: When it came to be, by the store's clock.
    """

    key: Key
    size: Annotated[int, Meta(ge=0)]
    etag: Annotated[str, Meta(max_length=256)]
    modified: datetime | None = None


class SignedRequest(msgspec.Struct, frozen=True):
    """One request that whoever holds it may make, once or again, until it expires.

    Its ``repr`` leaves out what makes it valid.

    Attributes:
        method: ``GET`` or ``PUT``.
        url: Absolute.
        headers: Must be sent exactly so: they are signed.
        expires: Until when.
    """

    method: str
    url: str
    headers: dict[str, str]
    expires: datetime

    def __repr__(self) -> str:
        parts = urlsplit(self.url)
        return f"SignedRequest({self.method} {parts.scheme}://{parts.netloc}/…, {self.expires})"


def of_their_size(
    contents: Sequence[Content], found: Sequence[StoredObject | None]
) -> list[StoredObject | None]:
    """Of what was found of contents, in their order, that which has the content's size."""
    return [
        there if there is not None and there.size == each.size else None
        for each, there in zip(contents, found, strict=True)
    ]


def etag_of(text: str) -> str:
    """An ETag as a header has it, without quotes and mark of weakness; empty if it is none."""
    etag = text.removeprefix("W/").strip('"')
    return etag if _ETAG.fullmatch(etag) else ""


class UploadStore(Protocol):
    """Takes files in parts: a store, or the server in front of one.

    Every method may raise

    * `StorageUnreachable`: the store doesn't answer, or says that it is too busy; try again.
    * `StorageRefused`: it says no: wrong credentials, no such bucket, a request it can't read.
    * `OutOfSpace`: it is full.
    """

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key; None when there is nothing."""

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload; what isn't completed goes away after a day.

        Args:
            key: Of the object that it will be; see `check_key`.
            size: Bytes of the whole, 0 to `MAX_OBJECT`.
            part_size: Bytes of every part but the last; see `part_size_for`.
            checksum: What is to pin the parts; None for the cheapest that the store compares.

        Raises:
            InvalidName: The key is refused.
            DataError: Sizes that no store takes.
        """

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts, in their order: each is good for that size and checksum.

        Args:
            upload: From `begin`.
            parts: With the size that the upload gives them, and the checksum that it is pinned by.
            seconds: How long they are good for, 1 to `MAX_SECONDS`.

        Raises:
            DataError: A part that the upload doesn't have, of another size, or without checksum.
        """

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that the store has, by number.

        Raises:
            UnknownUpload: It expired, was completed, or was given up.
        """

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts, which the store must all have as they are told here.

        Asked again after it was done, because the answer got lost, it says the same again.

        Args:
            upload: From `begin`.
            parts: Every one, with the ETag that its sender was told.

        Raises:
            UnknownUpload: It expired or was given up.
            PartsMissing: The store lacks parts, or has others; it names them.
            DataError: ``parts`` isn't every part of the upload, or has none of the ETags that one
                that is pinned by CRC32C needs.
        """

    def abort(self, upload: Upload) -> None:
        """Give an upload up and remove its parts; one that isn't there any more is no error."""

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece each, in their order.

        Each is good for exactly those bytes. Where an object came to be meanwhile it is answered
        with 412, unless it is one that replaces.

        Args:
            contents: Of which each key is named once.
            replacing: What is there under these keys isn't what it should be.

        Returns:
            None for what is known to be there, and stays.

        Raises:
            InvalidName: A key is refused.
        """

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is there now of contents that were sent, in their order.

        Returns:
            None for what isn't there, or not as it was sent: it is to be sent again.
        """


class ObjectStore(UploadStore, Protocol):
    """A store, as the server and a worker with a role of its own have it."""

    @property
    def name(self) -> str:
        """Names it in messages and logs; no secret is in it."""

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object, whole or in ranges; the object needn't be there.

        Args:
            key: Its name.
            seconds: How long it is good for, 1 to `MAX_SECONDS`.
        """

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """The same for many objects, in their order."""

    def content_request(
        self,
        content: Content,
        *,
        blake3: str = "",
        replacing: bool = False,
        seconds: int = PART_SECONDS,
    ) -> SignedRequest:
        """A request that sends a content in one piece, as `offer` has it; the store isn't asked.

        Args:
            content: The content.
            blake3: Of it, 64 hex digits: a store that can compares that as well.
            replacing: Whether it takes the place of what is there.
            seconds: How long it is good for, 1 to `MAX_SECONDS`.
        """

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is there under each of many keys, in their order."""

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet; of several exactly one succeeds.

        Returns:
            False when one is there already.
        """

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object; None when there is none.

        Args:
            key: Its name.
            limit: Bytes that it may have.

        Raises:
            DataError: It has more.
        """

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``, in any order: not every store sorts."""

    def delete(self, key: str) -> None:
        """Remove an object; one that isn't there is no error."""


def check_key(key: str) -> str:
    """Return a key that every store takes as it is, whatever it is made of.

    Letters, digits and ``._-``, in parts between ``/`` that begin with a letter, a digit or
    ``_``: nothing that a file system or a URL would read in a way of its own.

    Raises:
        InvalidName: Another key.
    """
    if len(key) > MAX_KEY or _KEY.fullmatch(key) is None:
        why = f"it is 1 to {MAX_KEY} of A-Z a-z 0-9 . _ - /, and no part begins with '.' or '-'"
        raise InvalidName(kind="storage key", name=key[:80], why=why)
    return key


def part_size_for(size: int, *, largest: int = LARGEST_PARTS) -> int:
    """How large the parts of a file should be.

    16 MiB, growing with the file so that there are some 64 of them, up to ``largest``; beyond
    that only as far as `MAX_PARTS` asks for. Always a whole number of blocks.

    Args:
        size: Bytes of the file.
        largest: Bytes that a part should have at most, the setting ``multipart_chunk_size``.
    """
    wanted = min(max(SMALLEST_PARTS, -(-size // _FEW)), max(largest, MIN_PART))
    needed = -(-size // MAX_PARTS)
    return -(-max(wanted, needed) // BLOCK) * BLOCK


def check_sizes(size: int, part_size: int) -> None:
    """Check that an upload is one that every store takes.

    Raises:
        DataError: It isn't, and why.
    """
    why = ""
    if not 0 <= size <= MAX_OBJECT:
        why = f"{size} bytes are more than the {MAX_OBJECT} of the largest object"
    elif not MIN_PART <= part_size <= MAX_PART:
        why = f"parts have {MIN_PART} to {MAX_PART} bytes, not {part_size}"
    elif -(-size // part_size) > MAX_PARTS:
        why = f"parts of {part_size} bytes would be more than {MAX_PARTS}"
    if why:
        raise DataError(what="upload", why=why)


def check_parts(upload: Upload, parts: Sequence[Part], *, every: bool = False) -> None:
    """Check that parts are those of an upload.

    Args:
        upload: The upload.
        parts: Of which each may be named once.
        every: Whether all of them must be there, as they are named when it is completed.

    Raises:
        DataError: They aren't.
    """
    why = ""
    numbers = {part.number for part in parts}
    if len(numbers) != len(parts):
        why = "a part is named twice"
    elif every and len(numbers) != upload.part_count:
        why = f"{len(numbers)} parts are named, and it has {upload.part_count}"
    for part in parts:
        if not 1 <= part.number <= upload.part_count:
            why = f"it has {upload.part_count} parts, and none with number {part.number}"
        elif part.size != upload.length(part.number):
            why = f"part {part.number} has {upload.length(part.number)} bytes, not {part.size}"
        elif part.pinned_by(upload.checksum) is None:
            why = f"part {part.number} is named without its {upload.checksum}"
        elif every and upload.checksum == "crc32c" and not part.etag:
            why = f"part {part.number} is named without the ETag that its sender was told"
        if why:
            break
    if why:
        raise DataError(what=f"upload to {upload.key}", why=why)


def check_there(
    upload: Upload, parts: Sequence[Part], stored: Sequence[StoredPart]
) -> dict[int, StoredPart]:
    """See that a store has all parts of an upload as they were sent.

    Args:
        upload: The upload.
        parts: Every one of them.
        stored: What the store has.

    Returns:
        What the store has, by number.

    Raises:
        PartsMissing: It lacks some, or has others; the first of them are named.
    """
    there = {part.number: part for part in stored}
    lacking = sorted(part.number for part in parts if not part.is_there(there.get(part.number)))
    if lacking:
        raise PartsMissing(key=upload.key, parts=", ".join(map(str, lacking[:50])))
    return there
