"""Where the content of a pull comes from: workers that have it, and the room's storage.

::

    weigh ──► which other workers have the same content? is it in storage?
      │
    plan  ──► transfer/choice.py: ways in their order, each with its reason
      │
    supply ─► auto    the workers share the download; with storage, if that is before the link
              s3      storage alone, the workers when it fails
              others  the workers

A source that fails is replaced by the others in mid-file; storage that was only away
for a moment is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from loguru import logger

from sleap_rtc.client.counting import CountedSources
from sleap_rtc.client.room_storage import RoomStorage
from sleap_rtc.client.unwaited import unwaited
from sleap_rtc.config import Settings
from sleap_rtc.domain.models import ModelFile
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import NetworkError, SleapRtcError
from sleap_rtc.protocol.moving import MAX_STORED
from sleap_rtc.transfer.choice import LARGE, Plan, Reach, Situation, Wish, leaves_open, plan
from sleap_rtc.transports.base import BlockSource, Sources

if TYPE_CHECKING:
    from sleap_rtc.storage.objects import SignedRequest
    from sleap_rtc.transports.stored import StorageSource

AGAIN_S: Final = 5.0
"""Seconds after which storage that failed is tried again."""
_ASKED_AT_ONCE: Final = 8

Say = Callable[[str], None]
"""Told in a sentence what a person should know."""


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """What a user wants of the ways that content takes, and what there is.

    Attributes:
        wish: Which one comes first.
        large: Bytes from which storage is asked without being named.
        storage: The room's; None where there is none.
        reach: How it stands with direct connections to the worker.
        uploads: Folder where unfinished uploads are noted; None where nothing is to be uploaded.
        in_flight: Parts that are uploaded at once.
        largest_part: Bytes that a part has at most.
        rate: Bytes per second, None for any.
    """

    wish: Wish = "auto"
    large: int = LARGE
    storage: RoomStorage | None = None
    reach: Reach = "untried"
    uploads: Path | None = None
    in_flight: int = 10
    largest_part: int = 100_000_000
    rate: int | None = None

    @classmethod
    def of(cls, settings: Settings, storage: RoomStorage) -> Ways:
        """As the settings say.

        Args:
            settings: This machine's.
            storage: The room's area of models' files.
        """
        return cls(
            wish=settings.transport,
            large=settings.large_file_threshold,
            storage=storage,
            uploads=settings.home / "uploads",
            in_flight=settings.max_concurrent_parts,
            largest_part=settings.multipart_chunk_size,
            rate=settings.limit_rate,
        )

    @property
    def takes_near(self) -> bool:
        """Whether files may be read where they are."""
        return leaves_open(self.wish, "local")

    def plan(
        self,
        size: int,
        *,
        stored: int | None,
        why: str,
        sends: bool = False,
        near: bool | None = None,
    ) -> Plan:
        """The plan for so many bytes.

        Args:
            size: Bytes to move.
            stored: Bytes of it that storage has; None where it can't be used.
            why: Why not.
            sends: Whether this side has the content.
            near: Whether both sides are on one machine; None while that isn't known.
        """
        return plan(
            Situation(
                size=size,
                what="the model's files",
                wish=self.wish,
                reach=self.reach,
                same_machine=near,
                stored=stored,
                no_storage=why,
                large=self.large,
                sends=sends,
            )
        )


def contents_of(files: Sequence[ModelFile]) -> tuple[str, ...]:
    """The BLAKE3 of each file, in the order that a package of them has."""
    return tuple(file.blake3 for file in sorted(files, key=lambda each: each.path.encode()))


async def in_storage(ways: Ways, size: int, files: Sequence[ModelFile]) -> tuple[int | None, str]:
    """How many bytes of a model storage has; None, and why, where it can't or needn't be asked.

    Args:
        ways: What the user wants, and the storage.
        size: Bytes of the model.
        files: Its files, where they are known.
    """
    if ways.wish not in ("auto", "s3"):
        return None, f"{ways.wish} was asked for"
    if ways.wish == "auto" and size < ways.large:
        return None, "it isn't asked for so little"
    if ways.storage is None or not ways.storage.can:
        return None, "what asks for it isn't installed here: pip install 'sleap-rtc[http]'"
    if sum(file.size for file in files) != size:
        return None, "the hashes of the files aren't known"
    if len(files) > MAX_STORED:
        return None, f"it is asked for {MAX_STORED} files at most"
    try:
        storage = ways.storage
        return await unwaited(lambda: _bytes_there(storage, files), name="storage"), ""
    except SleapRtcError as error:
        logger.bind(code=error.code).info("storage isn't used: {}", error)
        return None, _clause(error)


def _bytes_there(storage: RoomStorage, files: Sequence[ModelFile]) -> int:
    from sleap_rtc.storage.pausing import side_by_side  # noqa: PLC0415 - only where there is any

    store = storage.open()
    left = iter([file for file in files if file.size])
    lock, stopped, there = threading.Lock(), threading.Event(), 0

    def ask() -> None:
        nonlocal there
        while not stopped.is_set():
            with lock:
                file = next(left, None)
            if file is None:
                return
            found = store.head(store.key(file.blake3))
            if found is not None and found.size == file.size:
                with lock:
                    there += file.size

    failure = side_by_side(ask, _ASKED_AT_ONCE, name="storage", stop=stopped.set, abort=stopped.set)
    if failure is not None:
        raise failure
    return there


def storage_source(
    storage: RoomStorage, package: PackageRef, contents: Sequence[str]
) -> StorageSource:
    """Storage as a source of a package's blocks.

    Args:
        storage: The room's; its extra is installed.
        package: The package.
        contents: The BLAKE3 of each of its files, in its order.
    """
    from sleap_rtc.transports.stored import StorageSource  # noqa: PLC0415 - behind an extra

    def links(contents: Sequence[str]) -> Sequence[SignedRequest]:
        store = storage.open()
        return store.download_requests([store.key(blake3) for blake3 in contents])

    return StorageSource(
        package.id,
        contents,
        links,
        size=package.size,
        name="the room's storage",
    )


class Supply:
    """The sources of one download. For one event loop.

    Args:
        links: Those of peers that have it.
        stored: Storage, if that is used; closed at the end.
        size: Bytes of the package.
        alone: Whether peers are asked only when storage fails.
        say: Told when one way takes the place of another.

    Attributes:
        counted: What came, by way and source.
    """

    def __init__(
        self,
        links: Sequence[Sources],
        stored: StorageSource | None,
        *,
        size: int,
        alone: bool = False,
        say: Say,
    ) -> None:
        self._stored, self._size, self._alone = stored, size, alone
        self._links = links
        self._say = say
        self._failing = False
        self._waiting: asyncio.TimerHandle | None = None
        self.counted = CountedSources(*(() if alone else links))
        self.counted.on_failure = self._failed
        self.counted.on_wrong = self._was_wrong

    @property
    def damaged(self) -> dict[str, str]:
        """Contents that storage gave wrong; see `StorageSource`."""
        return {} if self._stored is None else self._stored.damaged

    @contextlib.contextmanager
    def sources(self) -> Iterator[Sources]:
        """What to fetch from, until the block ends."""
        with self.counted.current() as sources:
            self._add_storage()
            try:
                yield sources
            finally:
                if self._waiting is not None:
                    self._waiting.cancel()
                if self._stored is not None:
                    self._stored.close()

    def _add_storage(self) -> None:
        self._failing = False
        if self._stored is not None:
            from sleap_rtc.transports import stored  # noqa: PLC0415 - behind an extra

            beside = bool(self._links) and not self._alone
            self.counted.add(self._stored, stored.manner(self._size, beside=beside))

    def _failed(self, source: BlockSource, error: SleapRtcError) -> None:
        if source is not self._stored or self._failing:
            return
        self._failing = True
        if self._alone:
            self._say(f"Storage fails, so it comes from the worker: {_clause(error)}.")
            self._use_links()
        elif not isinstance(error, NetworkError):
            self._say(f"Storage isn't used any more: {_clause(error)}.")
        if isinstance(error, NetworkError):
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(AGAIN_S, self._add_storage)

    def _was_wrong(self, source: BlockSource) -> None:
        if source is self._stored and self._alone:
            self._say("Some of what storage has is damaged: it comes from the worker as well.")
            self._use_links()

    def _use_links(self) -> None:
        self._alone = False
        for link in self._links:
            self.counted.follow(link)


def _clause(error: SleapRtcError) -> str:
    """An error's sentence as the end of another one."""
    text = error.message.strip()
    return text[:1].lower() + text[1:].rstrip(".")
