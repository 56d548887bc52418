"""S3, and every store that speaks its protocol, by presigned requests alone.

What a client may do it gets as one signed request; what the server does itself
it asks for by the same means, so that there is one way of signing, and no SDK
(boto3 takes 1.2 CPU seconds to import, and signs a tenth as many requests;
obstore can't list parts, nor pin headers into a URL).

A request that fails for reasons that pass is made again, a few times
(:mod:`sleap_rtc.storage.bucket`). An answer that got lost is thought of:

=============  ==============================================================
create         412 on a second try: the object is read, and if it is ours we won
complete       no such upload on a second try: the object is there, so it was done
=============  ==============================================================

Before the first upload a bucket is asked once what pins parts in it
(:mod:`sleap_rtc.storage.pinning`).
"""

from __future__ import annotations

import base64
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

from sleap_rtc.errors import (
    Damaged,
    DataError,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage import xml
from sleap_rtc.storage.bucket import ATTEMPTS, Bucket, BucketRequests
from sleap_rtc.storage.bucket_lists import BucketLists, number
from sleap_rtc.storage.checksums import checksum_of, encoded, header_of
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
    etag_of,
    of_their_size,
)
from sleap_rtc.storage.pinning import pins_by_crc32c
from sleap_rtc.storage.signing import Credentials
from sleap_rtc.storage.wire import MAX_ANSWER, Answer, Connections

_OTHER_PARTS: Final = frozenset({"InvalidPart", "InvalidPartOrder"})
"""What is said of completing with parts that aren't there, or have other ETags."""
_IN_XML: Final = {"sha256": "ChecksumSHA256", "crc32c": "ChecksumCRC32C"}


class S3Store:
    """A bucket as an :class:`~sleap_rtc.storage.objects.ObjectStore`. For many threads.

    Args:
        bucket: Where it is.
        credentials: Asked each time, so that temporary ones may change.
        connections: To be shared with others.
        clock: The time in UTC; the store's own corrects it where the two differ.
        wait: Waits some seconds; for tests.
        chance: Random, 0 to 1; for tests.

    Attributes:
        requests: Asks the bucket what no other store can be asked.
    """

    def __init__(
        self,
        bucket: Bucket,
        credentials: Callable[[], Credentials],
        *,
        connections: Connections | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connections = connections or Connections()
        self.requests = BucketRequests(
            bucket,
            credentials,
            connections=self._connections,
            clock=clock,
            wait=wait,
            chance=chance,
        )
        self._lists = BucketLists(self.requests)
        self._asking = threading.Lock()
        self._cheapest: Checksum | None = None

    @property
    def name(self) -> str:
        """``s3://bucket at host``."""
        return self.requests.name

    @property
    def bucket(self) -> Bucket:
        """Where it is."""
        return self.requests.bucket

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key; None when there is nothing."""
        answer = self.requests.ask("HEAD", check_key(key), what=f"look for {key}", missing_ok=True)
        if answer.status == 404:
            return None
        modified = None
        with contextlib.suppress(TypeError, ValueError):
            modified = parsedate_to_datetime(answer.headers.get("last-modified", ""))
        return StoredObject(
            key=key,
            size=number(answer.headers.get("content-length", ""), self.name),
            etag=etag_of(answer.headers.get("etag", "")),
            modified=modified,
        )

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload."""
        check_key(key)
        check_sizes(size, part_size)
        pinned_by = checksum or self._pinned_by()
        answer = self.requests.ask(
            "POST",
            key,
            query={"uploads": ""},
            headers={"x-amz-checksum-algorithm": pinned_by.upper()},
            what=f"begin an upload to {key}",
        )
        upload = xml.text(xml.parse(answer.body, self.name), "UploadId")
        return Upload(key=key, id=upload, size=size, part_size=part_size, checksum=pinned_by)

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts; their length and checksum are signed."""
        check_parts(upload, parts)
        return [
            self.requests.signed(
                "PUT",
                upload.key,
                query=_place(upload, part),
                headers=_pins(upload, part),
                seconds=seconds,
                public=True,
            )
            for part in parts
        ]

    def send_part(self, upload: Upload, part: Part, data: bytes) -> str:
        """Send a small part from here.

        Returns:
            Its ETag.

        Raises:
            StorageRefused: The store takes these bytes for others than ``part`` says, or says no.
        """
        check_parts(upload, [part])
        answer = self.requests.ask(
            "PUT",
            upload.key,
            query=_place(upload, part),
            headers=_pins(upload, part),
            data=data,
            what=f"take part {part.number} of {upload.key}",
            upload=upload,
        )
        return etag_of(answer.headers.get("etag", ""))

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that the store has."""
        found: dict[int, tuple[str, StoredPart]] = {}
        marker = ""
        while True:
            query = {"uploadId": upload.id} | ({"part-number-marker": marker} if marker else {})
            answer = self.requests.ask(
                "GET", upload.key, query=query, what="list parts", upload=upload
            )
            root = xml.parse(answer.body, self.name)
            for node in xml.nodes(root, "Part"):
                part, when = (
                    _stored_part(node, self.name),
                    xml.text(node, "LastModified", default=""),
                )
                # SeaweedFS lists a part as often as it was sent; the last one counts.
                if part.number not in found or when >= found[part.number][0]:
                    found[part.number] = when, part
            if xml.text(root, "IsTruncated", default="false") != "true":
                return [found[number][1] for number in sorted(found)]
            further = xml.text(root, "NextPartNumberMarker")
            if further == marker:
                raise DataError(what=self.name, why="its list of parts has no end")
            marker = further

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts."""
        check_parts(upload, parts, every=True)
        ordered = sorted(parts, key=lambda part: part.number)
        try:
            etags = self._etags(upload, ordered)
            answer = self._ask_to_complete(upload, ordered, etags)
        except UnknownUpload:
            return self._done(upload, "")
        root = xml.parse(answer.body, self.name)
        self._compare(upload, ordered, xml.text(root, _IN_XML[upload.checksum], default=""))
        return self._done(upload, etag_of(xml.text(root, "ETag", default="")))

    def _etags(self, upload: Upload, ordered: Sequence[Part]) -> list[str]:
        """What parts are named by when they are to become the object.

        Raises:
            PartsMissing: The store lacks some, or has others.
            UnknownUpload: There is no such upload.
        """
        if upload.checksum == "crc32c":
            # Such a store was seen to refuse others; it may list one part as often as it was sent.
            return [part.etag for part in ordered]
        there = check_there(upload, ordered, self.parts(upload))
        return [part.etag or there[part.number].etag for part in ordered]

    def _ask_to_complete(
        self, upload: Upload, ordered: Sequence[Part], etags: Sequence[str]
    ) -> Answer:
        name = _IN_XML[upload.checksum]
        lines = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber>"
            f"<ETag>{xml.escape(quoted(etag))}</ETag>"
            f"<{name}>{encoded(part.pinned_by(upload.checksum) or b'')}</{name}></Part>"
            for part, etag in zip(ordered, etags, strict=True)
        )
        body = f"<CompleteMultipartUpload>{lines}</CompleteMultipartUpload>".encode()
        try:
            return self.requests.ask(
                "POST",
                upload.key,
                query={"uploadId": upload.id},
                headers={"content-type": "application/xml"},
                data=body,
                what=f"complete {upload.key}",
                upload=upload,
            )
        except StorageRefused as error:
            if error.details.get("why") in _OTHER_PARTS:
                check_there(upload, ordered, self.parts(upload))
            raise

    def abort(self, upload: Upload) -> None:
        """Give an upload up."""
        with contextlib.suppress(UnknownUpload):
            self.requests.ask(
                "DELETE",
                upload.key,
                query={"uploadId": upload.id},
                what="give an upload up",
                upload=upload,
            )

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece; the store says then what is there."""
        return [self.content_request(each, replacing=replacing) for each in contents]

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is there now of contents that were sent."""
        return of_their_size(contents, self.heads([each.key for each in contents]))

    def content_request(
        self,
        content: Content,
        *,
        blake3: str = "",
        replacing: bool = False,
        seconds: int = PART_SECONDS,
    ) -> SignedRequest:
        """A request that sends a content in one piece; its length and SHA-256 are signed."""
        del blake3
        headers = {
            "content-length": str(content.size),
            header_of("sha256"): encoded(content.sha256),
        }
        if not replacing:
            # Or whoever names another content for a key could replace what is good. It costs a
            # twentieth of SeaweedFS's time for a small one, the checksum as much.
            headers["if-none-match"] = "*"
        key = check_key(content.key)
        return self.requests.signed("PUT", key, headers=headers, seconds=seconds, public=True)

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is there under each of many keys."""
        return self._lists.heads(keys, self.head)

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object; ``range`` and ``if-match`` may be added to it."""
        return self.requests.signed("GET", check_key(key), seconds=seconds, public=True)

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that read many objects."""
        return [self.download_request(key, seconds=seconds) for key in keys]

    def own_download_request(self, key: str) -> SignedRequest:
        """The same for the server itself, which may reach the store by another address."""
        return self.requests.signed("GET", check_key(key))

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet."""
        uncertain = False
        pinned = encoded(checksum_of("sha256", data))
        headers = {"if-none-match": "*", header_of("sha256"): pinned}
        for attempt in range(1, ATTEMPTS + 1):
            request = self.requests.signed("PUT", check_key(key), headers=headers)
            try:
                answer = self._connections.send(request, data)
            except StorageUnreachable:
                if attempt == ATTEMPTS:
                    raise
                uncertain = True
                self.requests.pause(attempt)
                continue
            if answer.ok:
                return True
            if answer.status == 412:
                # An earlier request of ours may have made it, and its answer got lost.
                return uncertain and self.read(key, limit=len(data)) == data
            if answer.status not in AGAIN | {409} or attempt == ATTEMPTS:
                raise self.requests.refusal(answer, what=f"create {key}")
            uncertain = uncertain or answer.status not in (409, 429, 503)
            self.requests.pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object; None when there is none."""
        answer = self.requests.ask(
            "GET",
            check_key(key),
            # One byte more than allowed tells that there is more.
            extra={"range": f"bytes=0-{limit}"},
            what=f"read {key}",
            missing_ok=True,
            limit=max(limit + 1, MAX_ANSWER),
        )
        if answer.status == 404:
            return None
        if answer.status == 416:  # an empty object has no range
            return b""
        if len(answer.body) > limit:
            raise DataError(what=key, why=f"it has more than the {limit} bytes allowed")
        return answer.body

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``."""
        return self._lists.objects(prefix)

    def delete(self, key: str) -> None:
        """Remove an object; one that isn't there is no error."""
        self.requests.ask("DELETE", check_key(key), what=f"delete {key}", missing_ok=True)

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._connections.close()

    def _pinned_by(self) -> Checksum:
        """What pins parts here, asked once."""
        with self._asking:
            if self._cheapest is None:
                self._cheapest = "crc32c" if pins_by_crc32c(self) else "sha256"
            return self._cheapest

    def _compare(self, upload: Upload, parts: Sequence[Part], told: str) -> None:
        """Check the store's checksum over the parts' checksums, where it tells one."""
        found, _, count = told.partition("-")
        # Without a count a CRC32C is that of the whole, which nobody knows here.
        if not told or (upload.checksum == "crc32c" and not count):
            return
        each = [part.pinned_by(upload.checksum) or b"" for part in parts]
        if found != encoded(checksum_of(upload.checksum, b"".join(each))):
            raise Damaged(what=f"{upload.key} in {self.name}", why="its checksum differs")

    def _done(self, upload: Upload, etag: str) -> StoredObject:
        """The object that an upload has become, if it is there as it should be."""
        found = self.head(upload.key)
        if found is None:
            raise UnknownUpload(key=upload.key)
        if found.size != upload.size:
            why = f"it has {found.size} bytes, and {upload.size} were sent"
            raise Damaged(what=f"{upload.key} in {self.name}", why=why)
        return msgspec.structs.replace(found, etag=etag) if etag and not found.etag else found


def quoted(etag: str) -> str:
    """An ETag as headers have it."""
    return f'"{etag}"'


def _place(upload: Upload, part: Part) -> dict[str, str]:
    """Where a part goes."""
    return {"partNumber": str(part.number), "uploadId": upload.id}


def _pins(upload: Upload, part: Part) -> dict[str, str]:
    """Headers that hold a part's link to its bytes."""
    checksum = part.pinned_by(upload.checksum) or b""
    return {"content-length": str(part.size), header_of(upload.checksum): encoded(checksum)}


def _stored_part(node: xml.Node, store: str) -> StoredPart:
    sha256 = None
    told = xml.text(node, "ChecksumSHA256", default="")
    if told:
        with contextlib.suppress(ValueError):
            sha256 = base64.b64decode(told, validate=True)
    return StoredPart(
        number=number(xml.text(node, "PartNumber"), store),
        size=number(xml.text(node, "Size"), store),
        etag=etag_of(xml.text(node, "ETag")),
        sha256=sha256 if sha256 is not None and len(sha256) == 32 else None,
    )
