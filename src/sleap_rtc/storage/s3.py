"""S3, and every store that speaks its protocol, by presigned requests alone.

What a client may do it gets as one signed request; what the server does itself
it asks for by the same means, so that there is one way of signing, and no SDK
(boto3 takes 1.2 CPU seconds to import, and signs a tenth as many requests;
obstore can't list parts, nor pin headers into a URL).

A request that fails for reasons that pass (no connection, 429, 5xx) is made
again, a few times, after growing waits. An answer that got lost is thought of:

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
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from sleap_rtc.errors import (
    Damaged,
    DataError,
    OutOfSpace,
    SleapRtcError,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.net import backoff
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage import xml
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
from sleap_rtc.storage.signing import Credentials, presign
from sleap_rtc.storage.wire import MAX_ANSWER, Answer, Connections

ATTEMPTS: Final = 5

_OWN_SECONDS: Final = 300
"""Seconds that the server's own requests are good for: the clocks may differ by as much."""
_ASKED_AT_ONCE: Final = 16
"""Objects that are looked for at once."""
_LISTED_FROM: Final = 32
"""Objects from which on a list is asked for."""
_PAGE: Final = 1_000
"""Objects on a page of a list, as S3 has it."""
_KEYS_PER_PAGE: Final = 25
"""Objects whose looking for costs about as much as a page of a list."""
_LONG_S: Final = 600.0
"""Seconds in which a list that was too long isn't asked for again."""
_BASE, _CAP = 0.05, 5.0
_OTHER_PARTS: Final = frozenset({"InvalidPart", "InvalidPartOrder"})
"""What is said of completing with parts that aren't there, or have other ETags."""
_IN_XML: Final = {"sha256": "ChecksumSHA256", "crc32c": "ChecksumCRC32C"}
_SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "AccessDenied"})
_WORTH_CORRECTING: Final = timedelta(seconds=30)


class Bucket(msgspec.Struct, frozen=True):
    """Where a bucket is.

    Attributes:
        name: Of the bucket.
        region: For example ``us-east-1``.
        endpoint: Of a store that isn't Amazon's, ``https://host:port``; None is Amazon.
        public_endpoint: The same store as clients reach it; None is the same.
    """

    name: str
    region: str = "us-east-1"
    endpoint: str | None = None
    public_endpoint: str | None = None

    def url(self, key: str = "", *, public: bool = False) -> str:
        """The address of an object, or of the bucket."""
        endpoint = (self.public_endpoint if public else None) or self.endpoint
        if endpoint is not None:
            return f"{endpoint.rstrip('/')}/{self.name}" + (f"/{key}" if key else "")
        if "." in self.name:  # its certificate wouldn't fit
            return f"https://s3.{self.region}.amazonaws.com/{self.name}/{key}"
        return f"https://{self.name}.s3.{self.region}.amazonaws.com/{key}"


class S3Store:
    """A bucket as an :class:`~sleap_rtc.storage.objects.ObjectStore`. For many threads.

    Args:
        bucket: Where it is.
        credentials: Asked each time, so that temporary ones may change.
        connections: To be shared with others.
        clock: The time in UTC; the store's own corrects it where the two differ.
        wait: Waits some seconds; for tests.
        chance: Random, 0 to 1; for tests.
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
        self.bucket = bucket
        self._credentials = credentials
        self._connections = connections or Connections()
        self._clock = clock
        self._wait = wait
        self._chance = chance
        self._skew = timedelta()
        self._asking = threading.Lock()
        self._cheapest: Checksum | None = None
        self._long: dict[str, float] = {}

    @property
    def name(self) -> str:
        """``s3://bucket at host``."""
        return f"s3://{self.bucket.name} at {urlsplit(self.bucket.url()).netloc}"

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key; None when there is nothing."""
        answer = self.ask("HEAD", check_key(key), what=f"look for {key}", missing_ok=True)
        if answer.status == 404:
            return None
        modified = None
        with contextlib.suppress(TypeError, ValueError):
            modified = parsedate_to_datetime(answer.headers.get("last-modified", ""))
        return StoredObject(
            key=key,
            size=_number(answer.headers.get("content-length", ""), self.name),
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
        answer = self.ask(
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
            self._signed(
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
        answer = self.ask(
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
            answer = self.ask("GET", upload.key, query=query, what="list parts", upload=upload)
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
            return self.ask(
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
            self.ask(
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
        return self._signed("PUT", key, headers=headers, seconds=seconds, public=True)

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is there under each of many keys.

        Of many with a common beginning a list is asked for, which costs a hundredth; where it is
        long, because much else begins so, the rest is looked for one by one.
        """
        found: dict[str, StoredObject | None] = {}
        if len(keys) >= _LISTED_FROM:
            found = self._listed(keys)
        rest = [check_key(key) for key in keys if key not in found]
        if rest:
            with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(rest)), "heads") as pool:
                found |= zip(rest, pool.map(self.head, rest), strict=True)
        return [found[key] for key in keys]

    def _listed(self, keys: Sequence[str]) -> dict[str, StoredObject | None]:
        """What a list says of keys; all of them, or those that it came to in a few pages."""
        prefix = os.path.commonprefix(keys)  # noqa: RUF071 - they are names, and no paths
        now = time.monotonic()
        if self._long.get(prefix, now) > now:
            return {}
        wanted, found = set(keys), dict[str, StoredObject | None]()
        first, last = min(wanted), max(wanted)
        enough = _PAGE * (1 + len(keys) // _KEYS_PER_PAGE)
        # It begins right before the first: what is asked about together is often a stretch of it.
        listed = self._objects(prefix, after=first[:-1], first=len(wanted))
        for number, there in enumerate(listed, 1):
            if there.key in wanted:
                found[there.key] = there
                if len(found) == len(wanted):
                    return found
            elif there.key > last:
                # It is sorted as a rule; where it isn't, the rest is found one by one all the same.
                return found
            if number == enough:
                # Never changed, but replaced: other threads may be reading it.
                known = {p: end for p, end in self._long.items() if end > now}
                self._long = known | {prefix: now + _LONG_S}
                return found
        return dict.fromkeys(wanted) | found

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object; ``range`` and ``if-match`` may be added to it."""
        return self._signed("GET", check_key(key), seconds=seconds, public=True)

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that read many objects."""
        return [self.download_request(key, seconds=seconds) for key in keys]

    def own_download_request(self, key: str) -> SignedRequest:
        """The same for the server itself, which may reach the store by another address."""
        return self._signed("GET", check_key(key))

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet."""
        uncertain = False
        pinned = encoded(checksum_of("sha256", data))
        headers = {"if-none-match": "*", header_of("sha256"): pinned}
        for attempt in range(1, ATTEMPTS + 1):
            request = self._signed("PUT", check_key(key), headers=headers)
            try:
                answer = self._connections.send(request, data)
            except StorageUnreachable:
                if attempt == ATTEMPTS:
                    raise
                uncertain = True
                self._pause(attempt)
                continue
            if answer.ok:
                return True
            if answer.status == 412:
                # An earlier request of ours may have made it, and its answer got lost.
                return uncertain and self.read(key, limit=len(data)) == data
            if answer.status not in AGAIN | {409} or attempt == ATTEMPTS:
                raise self._refusal(answer, what=f"create {key}")
            uncertain = uncertain or answer.status not in (409, 429, 503)
            self._pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object; None when there is none."""
        answer = self.ask(
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
        return self._objects(prefix)

    def _objects(
        self, prefix: str, *, after: str = "", first: int = _PAGE
    ) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``.

        Args:
            prefix: The beginning.
            after: Those that come later alone.
            first: How many are asked for at first.
        """
        query = {"list-type": "2", "prefix": prefix}
        if after:
            query["start-after"] = after
        if first < _PAGE:
            query["max-keys"] = str(first)
        asked: set[str] = set()
        while True:
            answer = self.ask("GET", "", query=query, what="list objects")
            root = xml.parse(answer.body, self.name)
            for node in xml.nodes(root, "Contents"):
                yield StoredObject(
                    key=xml.text(node, "Key"),
                    size=_number(xml.text(node, "Size"), self.name),
                    etag=etag_of(xml.text(node, "ETag", default="")),
                    modified=_time(xml.text(node, "LastModified", default="")),
                )
            if xml.text(root, "IsTruncated", default="false") != "true":
                return
            further = xml.text(root, "NextContinuationToken")
            if further in asked:
                raise DataError(what=self.name, why="its list of objects has no end")
            asked.add(further)
            query = {"list-type": "2", "prefix": prefix, "continuation-token": further}

    def delete(self, key: str) -> None:
        """Remove an object; one that isn't there is no error."""
        self.ask("DELETE", check_key(key), what=f"delete {key}", missing_ok=True)

    def close(self) -> None:
        """Close the connections that no request uses."""
        self._connections.close()

    def ask(
        self,
        method: str,
        key: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
        data: bytes = b"",
        missing_ok: bool = False,
        upload: Upload | None = None,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Make a request of the server's own, again where that may help.

        Args:
            method: Of HTTP.
            key: Of the object; empty for the bucket.
            what: What is tried, for the error: ``list parts``.
            query: To be signed.
            headers: To be signed.
            extra: Not to be signed.
            data: The body.
            missing_ok: Whether a missing object (404, or no such range) is an answer.
            upload: What a 404 is about, if it is an upload.
            limit: Bytes that the answer may have.

        Raises:
            StorageUnreachable: After `ATTEMPTS` tries.
            StorageRefused: The store says no.
            OutOfSpace: It is full.
            UnknownUpload: There is no such upload.
        """
        for attempt in range(1, ATTEMPTS + 1):
            request = self._signed(method, key, query=query, headers=headers)
            try:
                answer = self._connections.send(request, data, headers=extra, limit=limit)
            except StorageUnreachable:
                if attempt == ATTEMPTS:
                    raise
                self._pause(attempt)
                continue
            said = xml.error(answer.body)
            # Completing may answer 200, and then say in the body that it failed.
            if answer.ok and said is None:
                return answer
            if answer.status == 403 and said in _SKEWED and self._corrected(answer):
                continue
            if said == "NoSuchUpload" and upload is not None:
                raise UnknownUpload(key=upload.key)
            if missing_ok and answer.status in (404, 416) and said != "NoSuchBucket":
                return answer
            if attempt < ATTEMPTS and (answer.status in AGAIN or answer.ok):
                self._pause(attempt)
                continue
            raise self._refusal(answer, what=what)
        raise AssertionError("the last attempt returns or raises")

    def _signed(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: int = _OWN_SECONDS,
        public: bool = False,
    ) -> SignedRequest:
        return presign(
            self._credentials(),
            method=method,
            url=self.bucket.url(key, public=public),
            region=self.bucket.region,
            now=self._clock() + self._skew,
            seconds=seconds,
            query=query,
            headers=headers,
        )

    def _pause(self, attempt: int) -> None:
        self._wait(backoff.delay(attempt, self._chance(), base=_BASE, cap=_CAP))

    def _corrected(self, answer: Answer) -> bool:
        """Whether the store's clock differs from the one we signed by, which is put right."""
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", ""))
        except (TypeError, ValueError):
            return False
        off = theirs - self._clock()
        if abs(off - self._skew) < _WORTH_CORRECTING:
            return False
        self._skew = off
        return True

    def _refusal(self, answer: Answer, *, what: str) -> SleapRtcError:
        said = xml.error(answer.body) or f"HTTP {answer.status}"
        if answer.status == 507:
            return OutOfSpace(path=self.name, free="no room", need="more bytes")
        if answer.status in AGAIN or answer.ok:
            return StorageUnreachable(store=self.name, why=said)
        return StorageRefused(store=self.name, what=what, why=said)

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
        number=_number(xml.text(node, "PartNumber"), store),
        size=_number(xml.text(node, "Size"), store),
        etag=etag_of(xml.text(node, "ETag")),
        sha256=sha256 if sha256 is not None and len(sha256) == 32 else None,
    )


def _number(text: str, store: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise DataError(what=store, why=f"{text[:40]!r} is no number")
    return int(text)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
