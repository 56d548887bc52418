"""A store in which what is known to be damaged isn't there: whoever has it sends it anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sleap_rtc.server.doubt_desk import DoubtDesk
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


class SoundStore:
    """An :class:`~sleap_rtc.storage.objects.ObjectStore` without what is damaged in another one.

    It is looked for in vain, and what is sent takes its place. Its bytes can still be read: most
    of them may be good, and who reads them compares them.

    Args:
        store: The other one.
        doubts: Knows what is damaged.
    """

    def __init__(self, store: ObjectStore, doubts: DoubtDesk) -> None:
        self._store, self._doubts = store, doubts

    @property
    def name(self) -> str:
        """The other one's."""
        return self._store.name

    def head(self, key: str) -> StoredObject | None:
        """What is there under a key, and isn't damaged."""
        return self._sound(self._store.head(key))

    def heads(self, keys: Sequence[str]) -> list[StoredObject | None]:
        """The same of many keys."""
        return [self._sound(found) for found in self._store.heads(keys)]

    def begin(
        self, key: str, *, size: int, part_size: int, checksum: Checksum | None = None
    ) -> Upload:
        """Begin an upload."""
        return self._store.begin(key, size=size, part_size=part_size, checksum=checksum)

    def part_requests(
        self, upload: Upload, parts: Sequence[Part], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """Requests that send parts."""
        return self._store.part_requests(upload, parts, seconds=seconds)

    def parts(self, upload: Upload) -> list[StoredPart]:
        """The parts that the store has."""
        return self._store.parts(upload)

    def complete(self, upload: Upload, parts: Sequence[Part]) -> StoredObject:
        """Make the object of its parts, in the place of what is there."""
        return self._store.complete(upload, parts)

    def abort(self, upload: Upload) -> None:
        """Give an upload up."""
        self._store.abort(upload)

    def offer(
        self, contents: Sequence[Content], *, replacing: bool = False
    ) -> list[SignedRequest | None]:
        """Requests that send contents in one piece each."""
        return [self.content_request(each, replacing=replacing) for each in contents]

    def confirm(self, contents: Sequence[Content]) -> list[StoredObject | None]:
        """What is there now of contents that were sent."""
        return [self._sound(found) for found in self._store.confirm(contents)]

    def content_request(
        self,
        content: Content,
        *,
        blake3: str = "",
        replacing: bool = False,
        seconds: int = PART_SECONDS,
    ) -> SignedRequest:
        """A request that sends a content in one piece, in the place of one that is damaged."""
        return self._store.content_request(
            content,
            blake3=blake3,
            replacing=replacing or self._doubts.was_damaged(content.key),
            seconds=seconds,
        )

    def download_request(self, key: str, *, seconds: int = PART_SECONDS) -> SignedRequest:
        """A request that reads an object, as it is."""
        return self._store.download_request(key, seconds=seconds)

    def download_requests(
        self, keys: Sequence[str], *, seconds: int = PART_SECONDS
    ) -> list[SignedRequest]:
        """The same for many objects."""
        return self._store.download_requests(keys, seconds=seconds)

    def create(self, key: str, data: bytes) -> bool:
        """Make a small object that must not be there yet."""
        return self._store.create(key, data)

    def read(self, key: str, *, limit: int) -> bytes | None:
        """The content of a small object."""
        return self._store.read(key, limit=limit)

    def keys(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with ``prefix``, as it is."""
        return self._store.keys(prefix)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._store.delete(key)

    def _sound(self, found: StoredObject | None) -> StoredObject | None:
        return None if found is None or self._doubts.is_damaged(found) else found
