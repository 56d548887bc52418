"""Reading a stored object to learn what its content is: from a folder, or over a bucket's link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

from sleap_rtc.errors import SourceChanged
from sleap_rtc.storage.download import RangeReader
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.folder_refusals import refusals
from sleap_rtc.storage.objects import SignedRequest, StoredObject
from sleap_rtc.storage.pausing import Patience
from sleap_rtc.storage.wire import Connections

_CHUNK: Final = 1024 * 1024
_RUN: Final = 16 * _CHUNK
"""Bytes that a bucket is asked for at once, and that are in memory."""
_PATIENCE: Final = Patience(attempts=4, cap=5.0)
"""With a store that fails: who waits for this can ask again."""


GoingOn = Callable[[], None]
"""Called between pieces; what it raises ends the reading of something that may be large."""


def digest_in_folder(
    folder: FolderStore, key: str, *, etag: str = "", going_on: GoingOn = lambda: None
) -> str:
    """BLAKE3 of an object's content.

    Args:
        folder: Where it is.
        key: Its name.
        etag: The version that is wanted; empty for any.
        going_on: See `GoingOn`.

    Raises:
        FileNotFoundError: It isn't there.
        SourceChanged: Another version is there.
        Damaged: The disk can't read it any more.
        StorageUnreachable: The disk fails otherwise.
        StorageRefused: The server's user may not read it.
    """
    digest = blake3()
    with folder.open(key) as found:
        if etag not in ("", found.about.etag):
            raise SourceChanged(path=key)
        with (
            refusals(f"read {key}", reads=key),
            open(found.fd, "rb", buffering=0, closefd=False) as file,
        ):
            while chunk := file.read(_CHUNK):
                going_on()
                digest.update(chunk)
    return digest.hexdigest()


def digest_over_link(
    link: Callable[[str], SignedRequest],
    connections: Connections,
    found: StoredObject,
    going_on: GoingOn = lambda: None,
) -> str:
    """BLAKE3 of the content of this version of an object.

    Args:
        link: Gives a fresh link that reads an object.
        connections: To its store.
        found: The object.
        going_on: See `GoingOn`.

    Raises:
        NotFound: It isn't there.
        SourceChanged: Another version is there.
        StorageUnreachable: The store fails.
        StorageRefused: It says no.
    """
    digest = blake3()
    reader = RangeReader(
        lambda: link(found.key),
        name=found.key,
        etag=found.etag,
        connections=connections,
        patience=_PATIENCE,
    )
    for at in range(0, found.size, _RUN):
        going_on()
        digest.update(reader.read(at, min(_RUN, found.size - at)))
    return digest.hexdigest()
