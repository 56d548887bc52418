"""Counting the bytes of content that travel, whichever way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.files.buffers import Content
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transfer.machine import SourceId
from sleap_rtc.transports.base import BlockSource, Manner, Place, Several, Sources, Traced
from sleap_rtc.transports.blocks import Served

_WEBRTC: Final[Kind] = "webrtc"
"""The way of a source that doesn't tell."""


class CountedServed:
    """A package that is given away, for several threads.

    Attributes:
        sent: Bytes of the blocks that the other side asked for.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()
        self.sent = 0

    @property
    def listing(self) -> bytes:
        """The canonical listing."""
        return self._served.listing

    def read(self, file: int, block: int) -> bytes:
        """One block."""
        data = self._served.read(file, block)
        with self._lock:
            self.sent += len(data)
        return data


class CountedSources:
    """Sources that come and go with others, and count what is fetched from these.

    Args:
        theirs: Those that are followed from the beginning.

    Attributes:
        came: Way and source → bytes of the blocks that came.
        on_failure: Called when a source failed or refused, before the transfer hears of it: so
            another one can be added in its place.
    """

    def __init__(self, *theirs: Sources) -> None:
        self.came: Counter[tuple[Kind, str]] = Counter()
        self.on_failure: Callable[[BlockSource, SleapRtcError], None] = lambda _source, _error: None
        self._near = 0
        self._first = theirs
        self._theirs: list[Sources] = []
        self._own = Sources()
        self._counted: dict[tuple[int, SourceId], _Counted] = {}
        self._watching = ExitStack()

    @property
    def received(self) -> int:
        """Bytes of all blocks that were sent."""
        return self.came.total() - self._near

    @contextmanager
    def current(self) -> Iterator[Sources]:
        """The sources to fetch from, until the block ends."""
        with self._watching:
            for theirs in self._first:
                self.follow(theirs)
            yield self._own

    def add_near(self, source: str, size: int) -> None:
        """Count bytes that were read from a peer's files, where they are on this machine."""
        if size:
            self.came["local", source] += size
            self._near += size

    def follow(self, theirs: Sources) -> None:
        """Use these sources, too, as they come and go, until the block ends."""
        self._watching.enter_context(theirs.watch(self._changed))
        self._theirs.append(theirs)
        self._changed()

    def add(self, source: BlockSource, manner: Manner) -> None:
        """Use one more source; one that was lost may be added again."""
        self._own.add(_Counted(source, self), manner)

    def _changed(self) -> None:
        theirs = {
            (number, key): source
            for number, sources in enumerate(self._theirs)
            for key, source in sources.current.items()
        }
        for place in [place for place in self._counted if place not in theirs]:
            self._own.remove(self._counted.pop(place))
        for place, source in theirs.items():
            if place not in self._counted:
                number, key = place
                self._counted[place] = _Counted(source, self)
                self._own.add(self._counted[place], self._theirs[number].manner(key))


class _Counted:
    """One of them."""

    def __init__(self, source: BlockSource, total: CountedSources) -> None:
        self._source = source
        self._total = total

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def at_once(self) -> int:
        return self._source.at_once if isinstance(self._source, Several) else 1

    async def several(
        self, package: PackageId, blocks: Sequence[Place], size: int
    ) -> tuple[Content, Kind]:
        source = self._source
        if not isinstance(source, Several):
            raise TypeError(f"{source.name} gives one block after the other")
        try:
            data, way = await source.several(package, blocks, size)
        except SleapRtcError as error:
            self._total.on_failure(source, error)
            raise
        self._total.came[way, source.name] += len(data)
        return data, way

    async def listing(self, ref: PackageRef) -> bytes:
        try:
            return await self._source.listing(ref)
        except SleapRtcError as error:
            self._total.on_failure(self._source, error)
            raise

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        source, way = self._source, _WEBRTC
        try:
            if isinstance(source, Traced):
                data, way = await source.bring(package, file, block, size)
            else:
                data = await source.block(package, file, block, size)
        except SleapRtcError as error:
            self._total.on_failure(source, error)
            raise
        self._total.came[way, source.name] += len(data)
        return data
