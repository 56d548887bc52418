"""What a server's storage API is asked and answers; the server and its clients share it.

::

    client                                         server
      │ request-upload   room, hash, size ──────────► │ "there" already, or an upload
      │ renew-upload     numbers, checksums ────────► │ signed requests, good for 1 h
      │ PUT …            straight to the store        │ (which answers with ETags)
      │ upload-status    ───────────────────────────► │ the parts that the store has
      │ complete-upload  every part, its ETag ──────► │ object
      │ request-download room, hash ────────────────► │ a signed request
      │ GET …            straight from the store      │

and for many small contents, hundreds at a time::

      │ offer-contents   room, hashes, sizes ───────► │ for each: "there", or a signed request
      │ PUT …            straight to the store        │
      │ confirm-contents room, hashes, sizes ───────► │ for each: what the store has
      │ request-links    room, hashes ──────────────► │ signed requests
      │ GET …            straight from the store      │

and of what turned out not to be what its name says, by whoever read it::

      │ report-damaged   room, hash, ETag ──────────► │ what the server itself reads of it

The server chooses by which checksum parts are pinned: by CRC32C only for who says that it
knows it, and names ETags when it completes; before there was that it was SHA-256, which it
still is for who doesn't.

Contents are named by their BLAKE3, in one of two areas of a room::

    uploads/<room>/<blake3>          gone after a day: datasets on their way
    rooms/<room>/files/<blake3>      kept: models' files
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from sleap_rtc.domain.models import Utc
from sleap_rtc.domain.values import Value
from sleap_rtc.protocol.signed import RoomName
from sleap_rtc.storage.objects import (
    MAX_OBJECT,
    MAX_PART,
    MAX_PARTS,
    MAX_WHOLE,
    MIN_PART,
    Checksum,
    Key,
    Part,
    Sha256,
    SignedRequest,
    StoredPart,
)

MAX_REQUESTS: Final = 100
"""Signed requests that are given at a time."""
MAX_CONTENTS: Final = 500
"""Contents that are named at a time."""
TEMPORARY_SECONDS: Final = 86_400
"""Seconds that something stays in the area ``uploads``, and an upload that isn't completed."""
COMPLETE_WITHIN: Final = 900.0
"""Seconds in which ``complete-upload`` is answered: a whole content may be hashed for it."""
CONFIRM_WITHIN: Final = 120.0
"""Seconds in which ``confirm-contents`` is answered: the store is asked for each of them."""
VERDICT_WITHIN: Final = 20.0
"""Seconds in which ``report-damaged`` is answered, whether or not the content is compared by then.
"""

Area = Literal["uploads", "rooms"]
Blake3 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
UploadId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Size = Annotated[int, Meta(ge=0, le=MAX_OBJECT)]


def content_key(area: Area, room: str, blake3: str) -> str:
    """The key of a content in a room's area."""
    return f"{area}/{room}/{blake3}" if area == "uploads" else f"{area}/{room}/files/{blake3}"


class RequestUpload(Value, frozen=True):
    """Asks to store a content.

    Attributes:
        room: Whose it will be.
        area: ``uploads`` for a day, ``rooms`` to stay.
        blake3: Of the whole content.
        size: Bytes of it.
        part_size: Bytes of every part but the last; the server chooses where it isn't given.
        parts: Of which requests are wanted at once.
        again: What is there turned out to be damaged: it is to be replaced.
        crc32c: Whether the sender can name parts by their CRC32C as well, and the ETags that it
            was told for them.
    """

    room: RoomName
    area: Area
    blake3: Blake3
    size: Size
    part_size: Annotated[int, Meta(ge=MIN_PART, le=MAX_PART)] | None = None
    parts: Annotated[tuple[Part, ...], Meta(max_length=MAX_REQUESTS)] = ()
    again: bool = False
    crc32c: bool = False


class UploadTold(Value, frozen=True):
    """Where to send it, or that it is there.

    Attributes:
        state: ``there``: nothing is to be sent. ``open``: its parts are.
        key: Of the object.
        size: Bytes of the whole.
        upload_id: Names the upload from now on; empty where it is there already.
        part_size: Bytes of every part but the last.
        part_count: Number of parts.
        checksum: By what each part is named, which pins its link.
        resumed: Whether this device began it earlier, and lost it for minutes: parts may be there.
        requests: For the parts that were asked for.
        expires: When the upload is given up if nothing comes, or the object goes; None if never.
    """

    state: Literal["there", "open"]
    key: Key
    size: Size
    upload_id: Annotated[str, Meta(max_length=32)] = ""
    part_size: Annotated[int, Meta(ge=0, le=MAX_PART)] = 0
    part_count: Annotated[int, Meta(ge=0, le=MAX_PARTS)] = 0
    checksum: Checksum = "sha256"
    resumed: bool = False
    requests: Annotated[tuple[SignedRequest, ...], Meta(max_length=MAX_REQUESTS)] = ()
    expires: Utc | None = None


class RenewUpload(Value, frozen=True):
    """Asks for requests that send parts, for the first time or again; each is good for 1 h."""

    upload_id: UploadId
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=MAX_REQUESTS)]


class RequestsTold(Value, frozen=True):
    """Signed requests, in the order of the parts that were named."""

    requests: Annotated[tuple[SignedRequest, ...], Meta(max_length=MAX_REQUESTS)]
    expires_in: Annotated[int, Meta(ge=0)]


class CompleteUpload(Value, frozen=True):
    """Asks to make the object of its parts.

    Attributes:
        upload_id: Its name.
        parts: Every one, with its checksum and the ETag that its sender was told.
    """

    upload_id: UploadId
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=MAX_PARTS)]


class ObjectTold(Value, frozen=True):
    """What is stored: its key, bytes, the store's mark of it, and when it goes, if it does."""

    key: Key
    size: Size
    etag: Annotated[str, Meta(max_length=256)]
    expires: Utc | None = None


class UploadStatus(Value, frozen=True):
    """How far an upload has come.

    Attributes:
        upload_id: Its name.
        state: ``open``: parts are wanted. ``completing``: asking again to complete it ends it.
            ``done``: the object is there.
        key: Of the object.
        size: Bytes of the whole.
        part_size: Bytes of every part but the last.
        part_count: Number of parts.
        checksum: By what each part is named.
        expires: When it is given up if nothing comes.
        parts: Those that the store has; empty once it is done.
    """

    upload_id: UploadId
    state: Literal["open", "completing", "done"]
    key: Key
    size: Size
    part_size: Annotated[int, Meta(ge=1, le=MAX_PART)]
    part_count: Annotated[int, Meta(ge=1, le=MAX_PARTS)]
    expires: Utc
    checksum: Checksum = "sha256"
    parts: Annotated[tuple[StoredPart, ...], Meta(max_length=MAX_PARTS)] = ()


class AbortUpload(Value, frozen=True):
    """Gives an upload up; one that isn't there any more is no error."""

    upload_id: UploadId


class Aborted(Value, frozen=True):
    """It is not there any more."""


class RequestDownload(Value, frozen=True):
    """Asks to read a content of a room."""

    room: RoomName
    area: Area
    blake3: Blake3


class DownloadTold(Value, frozen=True):
    """What is there, and a request that reads it, whole or in ranges.

    Attributes:
        key: Of the object.
        size: Bytes.
        etag: The store's mark; sent back as ``If-Match``, it pins ranges to one content.
        request: Good for 1 h.
        expires_in: Seconds that it is good for.
    """

    key: Key
    size: Size
    etag: Annotated[str, Meta(max_length=256)]
    request: SignedRequest
    expires_in: Annotated[int, Meta(ge=0)]


class NamedContent(Value, frozen=True):
    """A content that goes in one piece: BLAKE3, bytes, and what pins its link, the SHA-256."""

    blake3: Blake3
    size: Annotated[int, Meta(ge=0, le=MAX_WHOLE)]
    sha256: Sha256


Contents = Annotated[tuple[NamedContent, ...], Meta(min_length=1, max_length=MAX_CONTENTS)]


class OfferContents(Value, frozen=True):
    """Asks to store contents in one piece each.

    Attributes:
        room: Whose they will be.
        area: ``uploads`` for a day, ``rooms`` to stay.
        contents: Each named once.
        again: What is there under these names turned out not to be them: it is to be replaced.
    """

    room: RoomName
    area: Area
    contents: Contents
    again: bool = False


class ContentsOffered(Value, frozen=True):
    """For each content, in their order, where to send it; nothing where it is there, and stays.

    Attributes:
        requests: Each is good once or again, until something is there: then it says 412.
        expires_in: Seconds that they are good for.
    """

    requests: Annotated[tuple[SignedRequest | None, ...], Meta(max_length=MAX_CONTENTS)]
    expires_in: Annotated[int, Meta(ge=0)]


class ConfirmContents(Value, frozen=True):
    """Asks what the store has of contents that were offered and sent."""

    room: RoomName
    area: Area
    contents: Contents


class ContentsConfirmed(Value, frozen=True):
    """For each content, in their order, what is stored; nothing where it is to be sent again."""

    stored: Annotated[tuple[ObjectTold | None, ...], Meta(max_length=MAX_CONTENTS)]


class RequestLinks(Value, frozen=True):
    """Asks for requests that read contents of a room, which needn't be there."""

    room: RoomName
    area: Area
    contents: Annotated[tuple[Blake3, ...], Meta(min_length=1, max_length=MAX_CONTENTS)]


class LinksTold(Value, frozen=True):
    """Requests that read contents, in the order in which those were named.

    Attributes:
        requests: They answer 404 for what isn't there.
        expires_in: Seconds that they are good for.
    """

    requests: Annotated[tuple[SignedRequest, ...], Meta(max_length=MAX_CONTENTS)]
    expires_in: Annotated[int, Meta(ge=0)]


class ReportDamaged(Value, frozen=True):
    """Says that what the store has of a content isn't what its name says.

    Attributes:
        room: Whose it is.
        area: Where in it.
        blake3: What it should be.
        etag: The store's mark of what was read; empty where that isn't known.
    """

    room: RoomName
    area: Area
    blake3: Blake3
    etag: Annotated[str, Meta(max_length=256)] = ""


Found = Literal["damaged", "good", "gone", "open"]
"""``damaged``: the next who stores it is to send it anew. ``good``: it is what it should be.
``gone``: what was read isn't there any more. ``open``: it will be compared."""


class DamageTold(Value, frozen=True):
    """What the server says of a content, by what it read itself."""

    found: Found
