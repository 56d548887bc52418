"""Fetching from a store as a worker does: in runs of blocks, checked on both ways, resumable.

Each block is checked as it comes, read back from its file once it is written, and all is synced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from sleap_rtc.domain.packages import FileEntry, PackageRef, listing_of, package, ref
from sleap_rtc.storage.s3 import S3Store
from sleap_rtc.transports.base import Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.stored import StorageSource, manner


def bring(store: S3Store, files: Mapping[str, FileEntry], target: Path) -> None:
    """Fetch objects.

    Args:
        store: Where they are.
        files: Key → what is there, under the path that it gets.
        target: The folder for them, which is there; or the path of the only one.
    """
    made = package(files.values())
    keys = {entry.path: key for key, entry in files.items()}

    class Stored(StorageSource):
        """The listing, which a job's files have beside them, isn't in this bucket."""

        async def listing(self, ref: PackageRef) -> bytes:
            return listing_of(made.files)

    async def run() -> None:
        contents = [keys[entry.path] for entry in made.files]
        source = Stored(made.id, contents, store.download_requests, size=made.size)
        sources = Sources()
        sources.add(source, manner(made.size))
        try:
            staged = await fetch(
                ref(made),
                sources=sources,
                destination=str(target),
                incoming=target.with_name("incoming"),
            )
        finally:
            source.close()
        with staged:
            if target.is_dir():
                staged.path.rename(target)
            else:
                (staged.path / made.files[0].path).rename(target)
                staged.discard()

    asyncio.run(run())
