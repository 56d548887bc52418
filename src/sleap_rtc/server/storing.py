"""Opening the storage that a server's settings name, and tending it while the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from loguru import logger

from sleap_rtc.config import Settings
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.server.comparing import GoingOn, digest_in_folder, digest_over_link
from sleap_rtc.server.content_table import ContentTable
from sleap_rtc.server.doubt_desk import Digest, DoubtDesk
from sleap_rtc.server.doubt_table import DoubtTable
from sleap_rtc.server.objects import PREFIX
from sleap_rtc.server.sound_store import SoundStore
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.server.storage_rules import Rights
from sleap_rtc.server.store import Store
from sleap_rtc.server.upload_table import LOT, UploadTable
from sleap_rtc.server.usage import Quota
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import ObjectStore, SignedRequest, StoredObject
from sleap_rtc.storage.opening import UPLOADS, TwoBuckets, open_buckets
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.storage.wire import Connections

FOLDER: Final = "storage"
"""The folder's name within the server's own."""
SWEEP_EVERY: Final = 600.0
"""Seconds between looks at what is over."""
SOON: Final = 1.0
"""The same after a look that found as much as it looks at: rooms may get more than that."""

T = TypeVar("T")


class Storage:
    """A server's storage, opened.

    Args:
        folder: Where the objects are, if the server keeps them itself.
        desk: Answers what devices ask of it.
        doubts: Knows what of it is damaged.
        interrupted: Whether a crash left uploads of which it isn't known whether they are done.
        ending: What is to be done at the end.
    """

    def __init__(
        self,
        folder: FolderStore | None,
        desk: StorageDesk,
        doubts: DoubtDesk,
        *,
        interrupted: bool,
        ending: contextlib.ExitStack,
    ) -> None:
        self.folder, self.desk, self.doubts = folder, desk, doubts
        self._ending = ending
        self._interrupted = interrupted

    def close(self) -> None:
        """Compare no more, and close the connections to a store that is elsewhere."""
        self.doubts.close()
        self._ending.close()

    async def tend(self, *, every: float = SWEEP_EVERY) -> None:
        """Put right what a crash left, and remove what is over, again and again.

        Args:
            every: Seconds between.
        """
        if self._interrupted:
            await _guarded(self.desk.recover)
        pause = every
        while True:
            await asyncio.sleep(pause)
            gone = await _guarded(self.desk.sweep) or 0
            pause = SOON if gone >= LOT else every
            if self.folder is not None:
                await _guarded(self.folder.sweep)
            await _guarded(self.doubts.sweep)


def open_storage(
    settings: Settings, store: Store, rights: Rights, now: Callable[[], datetime]
) -> Storage | None:
    """Open the storage that the settings name; None where it is switched off.

    Args:
        settings: All of them.
        store: The server's database.
        rights: Who is a member of which room.
        now: The clock, UTC.

    Raises:
        InvalidConfig: A bucket would be spoken with unencrypted.
        OutOfSpace: The folder can't be made.
        PathNotPermitted: This user may not write there.
    """
    serving = settings.serving
    folder: FolderStore | None = None
    ending = contextlib.ExitStack()
    objects: ObjectStore
    digest: Digest
    match serving.storage:
        case "off":
            logger.info("storage is switched off: files go between devices alone")
            return None
        case "s3":
            buckets = open_buckets(settings.storage, os.environ, home=Path.home())
            objects = TwoBuckets(*buckets)
            connections = Connections()
            digest = functools.partial(
                digest_over_link, functools.partial(_link, *buckets), connections
            )
            for each in (connections, *buckets):
                ending.callback(each.close)
        case "folder":
            root = serving.storage_dir or serving.data_dir / FOLDER
            objects = folder = FolderStore(root, base_url=PREFIX.rstrip("/"), clock=now)
            digest = functools.partial(_digest, folder)
    table = UploadTable(store.database)
    doubts = DoubtDesk(objects, DoubtTable(store.database), rights, now=now, digest=digest)
    desk = StorageDesk(
        SoundStore(objects, doubts),
        table,
        ContentTable(store.database),
        rights,
        quota=Quota(size=serving.storage_quota, files=serving.storage_files),
        largest_parts=settings.multipart_chunk_size,
        now=now,
        digest=None if folder is None else functools.partial(digest_in_folder, folder),
    )
    logger.info("rooms' files in {}", objects.name)
    return Storage(folder, desk, doubts, interrupted=bool(table.completing()), ending=ending)


def _digest(folder: FolderStore, found: StoredObject, going_on: GoingOn) -> str:
    return digest_in_folder(folder, found.key, etag=found.etag, going_on=going_on)


def _link(uploads: S3Store, rooms: S3Store, key: str) -> SignedRequest:
    return (uploads if key.startswith(UPLOADS) else rooms).own_download_request(key)


async def _guarded(work: Callable[[], T]) -> T | None:
    """Do something now and then; when it fails, the next time may fare better."""
    try:
        return await asyncio.to_thread(work)
    except (SleapRtcError, OSError, sqlite3.Error) as error:
        logger.warning("tending the storage failed: {}", error)
        return None
