"""Opening the storage that a server's settings name, and tending it while the server runs."""

from __future__ import annotations

import asyncio
import functools
import os
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from blake3 import blake3
from loguru import logger

from sleap_rtc.config import Settings
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.server.content_table import ContentTable
from sleap_rtc.server.objects import PREFIX
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.server.storage_rules import Rights
from sleap_rtc.server.store import Store
from sleap_rtc.server.upload_table import LOT, UploadTable
from sleap_rtc.storage.folder import FolderStore
from sleap_rtc.storage.objects import ObjectStore
from sleap_rtc.storage.opening import TwoBuckets, open_buckets

FOLDER: Final = "storage"
"""The folder's name within the server's own."""
_CHUNK: Final = 1024 * 1024
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
        interrupted: Whether a crash left uploads of which it isn't known whether they are done.
    """

    def __init__(self, folder: FolderStore | None, desk: StorageDesk, *, interrupted: bool) -> None:
        self.folder, self.desk = folder, desk
        self._interrupted = interrupted

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
    objects: ObjectStore
    match serving.storage:
        case "off":
            logger.info("storage is switched off: files go between devices alone")
            return None
        case "s3":
            objects = TwoBuckets(*open_buckets(settings.storage, os.environ, home=Path.home()))
        case "folder":
            root = serving.storage_dir or serving.data_dir / FOLDER
            objects = folder = FolderStore(root, base_url=PREFIX.rstrip("/"), clock=now)
    table = UploadTable(store.database)
    desk = StorageDesk(
        objects,
        table,
        ContentTable(store.database),
        rights,
        quota=serving.storage_quota,
        largest_parts=settings.multipart_chunk_size,
        now=now,
        digest=None if folder is None else functools.partial(_digest, folder),
    )
    logger.info("rooms' files in {}", objects.name)
    return Storage(folder, desk, interrupted=bool(table.completing()))


def _digest(folder: FolderStore, key: str) -> str:
    digest = blake3()
    with folder.open(key) as found, open(found.fd, "rb", buffering=0, closefd=False) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


async def _guarded(work: Callable[[], T]) -> T | None:
    """Do something now and then; when it fails, the next time may fare better."""
    try:
        return await asyncio.to_thread(work)
    except (SleapRtcError, OSError, sqlite3.Error) as error:
        logger.warning("tending the storage failed: {}", error)
        return None
