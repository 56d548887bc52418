"""Bringing a job's inputs from where the job says that they are, however often that fails.

::

    the job's files ──► all here
        │   ▲
        │   └── after a growing wait, a short one if a peer has them ─┐
        ├── storage, or a shared disk, can't be reached ──────────────┘  for ``patience`` seconds
        ├── a peer has to bring a part, and is away ──► LinkLost: the job waits for it
        └── gone, damaged, not permitted ──► that error

What has arrived stays in each case, and the next attempt goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from sleap_rtc.client.doubting import explained, report
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import (
    Cancelled,
    Damaged,
    DataError,
    LinkLost,
    NetworkError,
    SleapRtcError,
)
from sleap_rtc.files.hashing import hash_file
from sleap_rtc.files.staged import Staged
from sleap_rtc.jobs.datasets import Dataset, LinkedFile
from sleap_rtc.net import backoff
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import Manner, Sources
from sleap_rtc.transports.stored import manner
from sleap_rtc.worker.dataset_source import DatasetSource, Places
from sleap_rtc.worker.peers import Peers

LOST_S: Final = 1.0
"""Seconds without a source after which one attempt ends: the only one there is doesn't come back
by itself."""
TAKEN_OVER_S: Final = 15.0
"""Seconds without any progress after which a peer who offers the same takes over."""
FIRST_S: Final = 1.0
MOST_S: Final = 30.0
"""Seconds that the first, and any, wait between two attempts may last."""

_ANEW: Final = "Submit the job again where its files are: what is damaged is then stored anew."

OnProgress = Callable[[Progress], None]
Bring = Callable[[Sources, float, OnProgress], Awaitable[Staged]]
"""Fetches what is missing from sources, with so much patience, and tells how far it is."""


class Gathering:
    """Gathers the inputs of a worker's jobs.

    Args:
        places: Where files of jobs may be.
        peers: Those who may offer packages.
        patience: Seconds without any progress after which it is given up.
        clock: Seconds, monotonic.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        places: Places,
        peers: Peers,
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._places = places
        self._peers = peers
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    def helps(self, datasets: Sequence[Dataset]) -> bool:
        """Whether any of these files is elsewhere than with whoever submitted the job."""
        return any(not isinstance(each, LinkedFile) or self._places.has(each) for each in datasets)

    async def bring(
        self,
        inputs: PackageRef,
        datasets: Sequence[Dataset],
        bring: Bring,
        *,
        on_progress: OnProgress,
        say: Callable[[str], None],
    ) -> Staged:
        """Bring the inputs of a job.

        Args:
            inputs: The package.
            datasets: All its files.
            bring: Fetches from sources.
            on_progress: Told how far it is.
            say: Told in a sentence what keeps it.

        Raises:
            LinkLost: A part has to come from a peer, and none is there.
            NetworkError: Storage can't be reached for longer than patience lasts; or for a while,
                and a peer offers the package.
            SleapRtcError: The files can't be had there.
        """
        failures, most, since = 0, -1, self._clock()

        def progress(now: Progress) -> None:
            nonlocal most, since, failures
            if now.done > most:
                most, since, failures = now.done, self._clock(), 0
            on_progress(now)

        with self._peers.sources(inputs.id) as peers:
            while True:
                source = DatasetSource(inputs, datasets, places=self._places, peers=peers)
                sources = Sources()
                sources.add(source, manner(inputs.size) if source.stores else Manner())
                try:
                    return await bring(sources, LOST_S, progress)
                except SleapRtcError as error:
                    failure = source.failure or error
                finally:
                    await source.close()
                if isinstance(failure, Damaged) and source.cached:
                    logger.warning("what was kept is damaged: {}", failure)
                    await asyncio.to_thread(_remove, source.cached)
                    continue
                if isinstance(failure, DataError) and source.damaged:
                    found = await report(self._places.storage, source.damaged)
                    raise explained(failure, found, anew=_ANEW)
                if not isinstance(failure, NetworkError) or isinstance(failure, LinkLost):
                    raise failure
                peer = self._peers.has_source(inputs.id)
                patience = min(TAKEN_OVER_S, self._patience) if peer else self._patience
                if self._clock() - since >= patience:
                    raise failure
                failures += 1
                if failures == 1:
                    say(f"{failure.message} It is tried again.")
                chance = random.random()  # noqa: S311 - so that not all come back at once
                await self._sleep(backoff.delay(failures, chance, base=FIRST_S, cap=MOST_S))

    async def keep(self, place: Path, datasets: Sequence[Dataset]) -> None:
        """Keep files that have arrived for other jobs, and other workers of this machine.

        They are named a second time, which takes no room; where a disk can't do that, they aren't.
        """
        stop = threading.Event()
        try:
            await asyncio.to_thread(self._keep, place, datasets, stop)
        finally:
            stop.set()  # cancelled, the thread soon ends by this

    def _keep(self, place: Path, datasets: Sequence[Dataset], stop: threading.Event) -> None:
        def check(_size: int) -> None:
            if stop.is_set():
                raise Cancelled(what="The hashing")

        for each in datasets:
            if not 0 < each.size_bytes <= self._places.cache_size or self._places.has(each):
                continue
            path = place / each.name
            try:
                # Whoever submitted the job may have named it wrongly, and others rely on the name.
                entry, hashes = hash_file(path, as_path=each.name, progress=check)
                if (entry.size, hashes.blake3) == (each.size_bytes, each.checksum):
                    self._link(path, each)
            except (OSError, SleapRtcError) as error:
                logger.debug("{} is not kept in the cache: {}", each.name, error)
                return

    def _link(self, path: Path, each: Dataset) -> None:
        def link(target: Path, _partial: Path) -> None:
            with contextlib.suppress(FileExistsError):
                os.link(path, target)

        with self._places.cache.use(each.checksum, each.size_bytes, link):
            pass


def _remove(paths: Sequence[Path]) -> None:
    """Remove files from the cache, of which one is damaged; what is good of them has been taken."""
    for path in paths:
        path.unlink(missing_ok=True)
