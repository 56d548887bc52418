"""A room's files behind a server, as a device has them: the server's HTTP API as an `UploadStore`.

The bytes themselves go to wherever the server's links lead, never through here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sleap_rtc.domain.ids import RoomId
from sleap_rtc.errors import DataError, InvalidName, NotFound, UnknownUpload
from sleap_rtc.net.api import ServerApi
from sleap_rtc.net.urls import UrlRules, check_url, is_private, parse_url
from sleap_rtc.storage.checksums import QUICK
from sleap_rtc.storage.objects import (
    PART_SECONDS,
    Checksum,
    Content,
    Part,
    SignedRequest,
    StoredObject,
    StoredPart,
    Upload,
    check_sizes,
)
from sleap_rtc.storage.service import (
    COMPLETE_WITHIN,
    CONFIRM_WITHIN,
    MAX_CONTENTS,
    MAX_REQUESTS,
    VERDICT_WITHIN,
    Aborted,
    AbortUpload,
    Area,
    CompleteUpload,
    ConfirmContents,
    ContentsConfirmed,
    ContentsOffered,
    DamageTold,
    DownloadTold,
    Found,
    LinksTold,
    NamedContent,
    ObjectTold,
    OfferContents,
    RenewUpload,
    ReportDamaged,
    RequestDownload,
    RequestLinks,
    RequestsTold,
    RequestUpload,
    UploadStatus,
    UploadTold,
    content_key,
)

_HEADER: Final = re.compile(r"content-length|content-type|if-none-match|x-amz-[a-z0-9-]{1,60}")
"""Headers that a link may want to be sent."""


class RemoteStore:
    """One area of a room on a server. For many threads.

    Keys are those of :func:`~sleap_rtc.storage.service.content_key`, in this room and area.

    Args:
        api: Asks the server, signed in as this device.
        room: The room.
        area: ``uploads`` or ``rooms``.
    """

    def __init__(self, api: ServerApi, room: RoomId, area: Area) -> None:
        self._api, self._room, self._area = api, room, area

    @property
    def name(self) -> str:
        """The server's address."""
        return self._api.server.url

    def key(self, blake3: str) -> str:
        """The key of a content."""
        return content_key(self._area, self._room, blake3)

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key, and stays: what goes soon is to be uploaded again."""
        found = self._find(key)
        if found is None or not self._stays(key, found.size):
            return None
        return StoredObject(key=key, size=found.size, etag=found.etag)

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object, good for as long as the server says.

        Raises:
            NotFound: There is none.
        """
        del seconds
        found = self._find(key)
        if found is None:
            raise NotFound(message=f"The room's storage has no {key}.")
        return self._checked(found.request, "GET")

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload, or go on with the one that this device has begun.

        Raises:
            UnknownUpload: The object came to be there in the meantime.
            DataError: The server names parts that no store takes.
        """
        request = RequestUpload(
            room=self._room,
            area=self._area,
            blake3=self._blake3(key),
            size=size,
            part_size=part_size,
            crc32c=QUICK and checksum != "sha256",
        )
        told = self._api.ask("/api/request-upload", UploadTold, request)
        if told.state == "there":
            raise UnknownUpload(key=key)
        check_sizes(size, told.part_size)
        return Upload(
            key=key,
            id=told.upload_id,
            size=size,
            part_size=told.part_size,
            checksum=told.checksum,
        )

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts, good for as long as the server says."""
        del seconds
        found: list[SignedRequest] = []
        for at in range(0, len(parts), MAX_REQUESTS):
            some = tuple(parts[at : at + MAX_REQUESTS])
            request = RenewUpload(upload_id=upload.id, parts=some)
            told = self._api.ask("/api/renew-upload", RequestsTold, request).requests
            self._count(told, some)
            found += (self._checked(request, "PUT") for request in told)
        return found

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that the store has."""
        status = self._api.ask(f"/api/upload-status/{upload.id}", UploadStatus)
        if status.state == "done":
            raise UnknownUpload(key=upload.key)
        return list(status.parts)

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts; the server compares the whole with its hash."""
        request = CompleteUpload(upload_id=upload.id, parts=tuple(parts))
        told = self._api.ask("/api/complete-upload", ObjectTold, request, timeout=COMPLETE_WITHIN)
        return StoredObject(key=told.key, size=told.size, etag=told.etag)

    def abort(self, upload: Upload) -> None:
        """Give an upload up."""
        self._api.ask("/api/abort-upload", Aborted, AbortUpload(upload_id=upload.id))

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece; none for what is there, and stays."""
        found: list[SignedRequest | None] = []
        for named in self._named(contents):
            request = OfferContents(
                room=self._room, area=self._area, contents=named, again=replacing
            )
            told = self._api.ask(
                "/api/offer-contents", ContentsOffered, request, timeout=CONFIRM_WITHIN
            ).requests
            self._count(told, named)
            found += (None if link is None else self._checked(link, "PUT") for link in told)
        return found

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is there now of contents that were sent."""
        found: list[StoredObject | None] = []
        for named in self._named(contents):
            request = ConfirmContents(room=self._room, area=self._area, contents=named)
            told = self._api.ask(
                "/api/confirm-contents", ContentsConfirmed, request, timeout=CONFIRM_WITHIN
            ).stored
            self._count(told, named)
            found += (
                None if each is None else StoredObject(key=each.key, size=each.size, etag=each.etag)
                for each in told
            )
        return found

    def download_requests(self, keys: Sequence[str]) -> list[SignedRequest]:
        """Requests that read many objects; those that aren't there answer 404."""
        found: list[SignedRequest] = []
        for at in range(0, len(keys), MAX_CONTENTS):
            some = tuple(self._blake3(key) for key in keys[at : at + MAX_CONTENTS])
            request = RequestLinks(room=self._room, area=self._area, contents=some)
            told = self._api.ask("/api/request-links", LinksTold, request).requests
            self._count(told, some)
            found += (self._checked(link, "GET") for link in told)
        return found

    def report_damaged(self, blake3: str, etag: str = "") -> Found:
        """Say that what is there of a content isn't what its name says.

        Args:
            blake3: What it should be.
            etag: The store's mark of what was read, where that is known.

        Returns:
            What the server finds when it reads it itself.

        Raises:
            TooManyRequests: This device reported too many.
            NotFound: A server that takes no reports.
        """
        request = ReportDamaged(room=self._room, area=self._area, blake3=blake3, etag=etag)
        within = 2 * VERDICT_WITHIN
        return self._api.ask("/api/report-damaged", DamageTold, request, timeout=within).found

    def _named(self, contents: Sequence[Content]) -> Iterator[tuple[NamedContent, ...]]:
        """Contents as the server is told of them, so many at a time."""
        for at in range(0, len(contents), MAX_CONTENTS):
            yield tuple(
                NamedContent(blake3=self._blake3(each.key), size=each.size, sha256=each.sha256)
                for each in contents[at : at + MAX_CONTENTS]
            )

    def _count(self, told: Sequence[object], asked: Sequence[object]) -> None:
        if len(told) != len(asked):
            raise DataError(what=self.name, why="it answers for others than it was asked for")

    def _checked(self, request: SignedRequest, method: str) -> SignedRequest:
        """A link that leads where a server may send its devices.

        To itself, or over TLS to a public host; a server that is itself on this machine or on a
        private network may have its store there as well.
        """
        server = self._api.server
        rules = UrlRules(own=frozenset({server}))
        if request.method != method or not all(map(_HEADER.fullmatch, request.headers)):
            raise DataError(what=self.name, why="it gives a link for something else")
        if not server.secure or is_private(server.host):
            target = parse_url(request.url)
            if target.secure or not server.secure:
                return request
        check_url(request.url, rules)
        return request

    def _find(self, key: str) -> DownloadTold | None:
        request = RequestDownload(room=self._room, area=self._area, blake3=self._blake3(key))
        try:
            return self._api.ask("/api/request-download", DownloadTold, request)
        except NotFound:
            return None

    def _stays(self, key: str, size: int) -> bool:
        """Ask that an object of the area ``uploads`` stays for another day."""
        if self._area != "uploads":
            return True
        request = RequestUpload(
            room=self._room, area=self._area, blake3=self._blake3(key), size=size
        )
        told = self._api.ask("/api/request-upload", UploadTold, request)
        if told.state == "open":
            self._api.ask("/api/abort-upload", Aborted, AbortUpload(upload_id=told.upload_id))
        return told.state == "there"

    def _blake3(self, key: str) -> str:
        blake3 = key.rpartition("/")[2]
        if key != self.key(blake3) or len(blake3) != 64:
            raise InvalidName(
                kind="storage key", name=key[:200], why="it is another room's, or another area's"
            )
        return blake3
