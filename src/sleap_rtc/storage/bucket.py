"""A bucket: where it is, and how it is asked, by presigned requests alone.

A request that fails for reasons that pass (no connection, 429, 5xx) is made again, a few times,
after growing waits; one that is refused because both clocks differ, by the store's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec

from sleap_rtc.errors import (
    OutOfSpace,
    SleapRtcError,
    StorageRefused,
    StorageUnreachable,
    UnknownUpload,
)
from sleap_rtc.net import backoff
from sleap_rtc.net.retrying import AGAIN
from sleap_rtc.storage import xml
from sleap_rtc.storage.objects import SignedRequest, Upload
from sleap_rtc.storage.signing import Credentials, presign
from sleap_rtc.storage.wire import MAX_ANSWER, Answer, Connections

ATTEMPTS: Final = 5

_OWN_SECONDS: Final = 300
"""Seconds that the server's own requests are good for: the clocks may differ by as much."""
_BASE, _CAP = 0.05, 5.0
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


class BucketRequests:
    """Signs requests to a bucket, and makes the server's own. For many threads.

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
        connections: Connections,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.bucket = bucket
        self._credentials = credentials
        self._connections = connections
        self._clock = clock
        self._wait = wait
        self._chance = chance
        self._skew = timedelta()

    @property
    def name(self) -> str:
        """``s3://bucket at host``."""
        return f"s3://{self.bucket.name} at {urlsplit(self.bucket.url()).netloc}"

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
            request = self.signed(method, key, query=query, headers=headers)
            try:
                answer = self._connections.send(request, data, headers=extra, limit=limit)
            except StorageUnreachable:
                if attempt == ATTEMPTS:
                    raise
                self.pause(attempt)
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
                self.pause(attempt)
                continue
            raise self.refusal(answer, what=what)
        raise AssertionError("the last attempt returns or raises")

    def signed(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: int = _OWN_SECONDS,
        public: bool = False,
    ) -> SignedRequest:
        """A request that may be made for some time.

        Args:
            method: Of HTTP.
            key: Of the object; empty for the bucket.
            query: To be signed.
            headers: To be signed.
            seconds: How long it is good for.
            public: Whether it is for a client, which may reach the store by another address.
        """
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

    def pause(self, attempt: int) -> None:
        """Wait after so many attempts that failed."""
        self._wait(backoff.delay(attempt, self._chance(), base=_BASE, cap=_CAP))

    def refusal(self, answer: Answer, *, what: str) -> SleapRtcError:
        """What an answer means that says no.

        Args:
            answer: The answer.
            what: What was tried, for the error.
        """
        said = xml.error(answer.body) or f"HTTP {answer.status}"
        if answer.status == 507:
            return OutOfSpace(path=self.name, free="no room", need="more bytes")
        if answer.status in AGAIN or answer.ok:
            return StorageUnreachable(store=self.name, why=said)
        return StorageRefused(store=self.name, what=what, why=said)

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
