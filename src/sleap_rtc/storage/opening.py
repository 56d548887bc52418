"""Opening what the settings name: the two buckets as one store, and this machine's cache."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from sleap_rtc.config import Settings, StorageSettings
from sleap_rtc.storage.bucket import Bucket
from sleap_rtc.storage.cache import FileCache
from sleap_rtc.storage.credentials import CredentialChain
from sleap_rtc.storage.objects import (
    PART_SECONDS,
    Checksum,
    Content,
    ObjectStore,
    Part,
    SignedRequest,
    StoredObject,
    StoredPart,
    Upload,
)
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.setup import check_production
from sleap_rtc.storage.wire import Connections

UPLOADS: Final = "uploads/"
"""What keys begin with whose objects stay a day; all others stay."""

T = TypeVar("T")


class TwoBuckets:
    """Two stores as one :class:`~sleap_rtc.storage.objects.ObjectStore`, by what a key begins with.

    They differ in what goes away by itself, and in who may write, which stores know of buckets
    alone.

    Args:
        uploads: Has the keys that begin with ``uploads/``.
        rooms: Has all others.
    """

    def __init__(self, uploads: ObjectStore, rooms: ObjectStore) -> None:
        self.uploads = uploads
        self.rooms = rooms

    @property
    def name(self) -> str:
        """Both."""
        return f"{self.uploads.name} and {self.rooms.name}"

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key."""
        return self._of(key).head(key)

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload."""
        return self._of(key).begin(key, size=size, part_size=part_size, checksum=checksum)

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts."""
        return self._of(upload.key).part_requests(upload, parts, seconds=seconds)

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that the store has."""
        return self._of(upload.key).parts(upload)

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts."""
        return self._of(upload.key).complete(upload, parts)

    def abort(self, upload: Upload) -> None:
        """Give an upload up."""
        self._of(upload.key).abort(upload)

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece each."""
        return [self.content_request(each, replacing=replacing) for each in contents]

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is there now of contents that were sent."""
        return self._both(contents, lambda each: each.key, lambda store, some: store.confirm(some))

    def content_request(
        self,
        content: Content,
        *,
        blake3: str = "",
        replacing: bool = False,
        seconds: int = PART_SECONDS,
    ) -> SignedRequest:
        """A request that sends a content in one piece."""
        store = self._of(content.key)
        return store.content_request(content, blake3=blake3, replacing=replacing, seconds=seconds)

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """What is there under each of many keys."""
        return self._both(keys, str, lambda store, some: store.heads(some))

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object."""
        return self._of(key).download_request(key, seconds=seconds)

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that read many objects."""
        return [self.download_request(key, seconds=seconds) for key in keys]

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet."""
        return self._of(key).create(key, data)

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object."""
        return self._of(key).read(key, limit=limit)

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``."""
        if prefix.startswith(UPLOADS) or UPLOADS.startswith(prefix):
            yield from self.uploads.keys(prefix)
        if not prefix.startswith(UPLOADS):
            yield from self.rooms.keys(prefix)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._of(key).delete(key)

    def _of(self, key: str) -> ObjectStore:
        return self.uploads if key.startswith(UPLOADS) else self.rooms

    def _both(
        self,
        things: Sequence[T],
        key: Callable[[T], str],
        ask: Callable[[ObjectStore, Sequence[T]], list[StoredObject | None]],
    ) -> list[StoredObject | None]:
        """Ask each store about its own, and give the answers in the things' order."""
        found: dict[str, StoredObject | None] = {}
        for store in (self.uploads, self.rooms):
            some = [each for each in things if self._of(key(each)) is store]
            if some:
                found |= zip(map(key, some), ask(store, some), strict=True)
        return [found[key(each)] for each in things]


def open_buckets(
    settings: StorageSettings, environment: Mapping[str, str], *, home: Path
) -> tuple[S3Store, S3Store]:
    """The buckets for uploads and for rooms; neither is asked anything yet.

    Args:
        settings: Where they are.
        environment: The process's, for credentials.
        home: The user's home directory, for credentials.

    Raises:
        InvalidConfig: The store would be spoken with unencrypted, beyond this machine.
    """
    if settings.profile == "production":
        for endpoint in (settings.endpoint, settings.public_endpoint):
            check_production(endpoint, local=endpoint is not None and _is_here(endpoint))
    credentials = CredentialChain(environment, home)
    connections = Connections()

    def opened(name: str) -> S3Store:
        bucket = Bucket(
            name=name,
            region=settings.region,
            endpoint=settings.endpoint,
            public_endpoint=settings.public_endpoint,
        )
        return S3Store(bucket, credentials, connections=connections)

    return opened(settings.uploads_bucket), opened(settings.rooms_bucket)


def open_cache(settings: Settings) -> FileCache:
    """This machine's cache of what was fetched.

    Raises:
        OutOfSpace: Its folder can't be made.
        PathNotPermitted: This user may not write there.
    """
    return FileCache(settings.cache_dir, limit=settings.cache_size)


def _is_here(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
