"""Asking a bucket whether CRC32C may pin the parts of uploads to it.

It may where three things hold, and all are tried on an upload of five bytes that comes to
nothing:

* a part whose bytes have another CRC32C is refused, and one that has it is taken;
* other bytes of the same CRC32C have another ETag;
* an upload isn't completed with an ETag that its part doesn't have.

Who holds a link can make other bytes of the same CRC32C; the last two keep them out of the
object. Old stores take any header that begins with ``x-amz-`` and look at none.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Final, Protocol

from msgspec.structs import replace

from sleap_rtc.errors import PartsMissing, StorageRefused, StorageUnreachable, UnknownUpload
from sleap_rtc.storage.checksums import QUICK, checksum_of
from sleap_rtc.storage.objects import MIN_PART, ObjectStore, Part, Upload

PREFIX: Final = "probe/"
"""What the keys of a probe begin with; nothing of it is left."""
ALIKE: Final = (bytes(5), bytes.fromhex("f176ec0501"))
"""Two contents of one CRC32C."""


class Tried(ObjectStore, Protocol):
    """A store that parts can be sent to from here."""

    def send_part(self, upload: Upload, part: Part, data: bytes) -> str:
        """Send a small part, and return its ETag.

        Raises:
            StorageRefused: The store takes these bytes for others than ``part`` says, or says no.
        """


def pins_by_crc32c(store: Tried) -> bool:
    """Whether a bucket compares CRC32Cs of parts, and ETags when it completes.

    Raises:
        StorageUnreachable: It doesn't answer.
        OutOfSpace: It is full.
    """
    if not QUICK:
        return False
    key = f"{PREFIX}{secrets.token_hex(8)}"
    try:
        size = len(ALIKE[0])
        upload = store.begin(key, size=size, part_size=MIN_PART, checksum="crc32c")
    except StorageRefused:
        return False
    part = Part.of(upload, 1, checksum_of("crc32c", ALIKE[0]))
    try:
        etags = [store.send_part(upload, part, data) for data in ALIKE]
        return (
            all(etags)
            and etags[0] != etags[1]
            and _refuses_other_etags(store, upload, part)
            and _refuses_other_bytes(store, upload, part)
        )
    except (StorageRefused, UnknownUpload):
        return False
    finally:
        with contextlib.suppress(StorageRefused, StorageUnreachable):
            store.abort(upload)


def _refuses_other_bytes(store: Tried, upload: Upload, part: Part) -> bool:
    """Whether it says so clearly, and not as if it had failed."""
    try:
        store.send_part(upload, part, b"other")
    except StorageRefused:
        return True
    except StorageUnreachable:
        return False
    return False


def _refuses_other_etags(store: Tried, upload: Upload, part: Part) -> bool:
    try:
        store.complete(upload, [replace(part, etag="0" * 32)])
    except PartsMissing:
        return True
    except StorageUnreachable:
        store.parts(upload)  # raises when it is away: else it is this at which it fails
        return False
    store.delete(upload.key)
    return False
