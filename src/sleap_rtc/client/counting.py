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
from sleap_rtc.transfer.events import SourceId
from sleap_rtc.transports.base import (
    Blamed,
    BlockSource,
    Keep,
    Manner,
    Place,
    Pouring,
    Several,
    Sources,
    Traced,
    leaves,
)
from sleap_rtc.transports.blocks import Served

_WEBRTC: Final[Kind] = "webrtc"
"""The way of a source that doesn't tell."""


class CountedServed:
    """A package that is given away, for several threads.

    Attributes:
        sent: Bytes of the blocks that the other side asked for.
        again: Blocks that it had asked for before.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()
        self._asked: set[tuple[int, int]] = set()
        self.sent = self.again = 0

    @property
    def listing(self) -> bytes:
        """The canonical listing."""
        return self._served.listing

    def read(self, file: int, block: int) -> bytes:
        """One block."""
        data = self._served.read(file, block)
        with self._lock:
            self.sent += len(data)
            self.again += (file, block) in self._asked
            self._asked.add((file, block))
        return data


class CountedSources:
    """Sources that come and go with others, and count what is fetched from these.

    Args:
        theirs: Those that are followed from the beginning.

    Attributes:
        came: Way and source → bytes of the blocks that came.
        again: Blocks that were under way more than once: what came was wrong, the source was lost,
            or another one was asked as well.
        on_failure: Called when a source failed or refused, before the transfer hears of it: so
            another one can be added in its place.
        on_wrong: Called when a block of a source wasn't what it should be.
    """

    def __init__(self, *theirs: Sources) -> None:
        self.came: Counter[tuple[Kind, str]] = Counter()
        self.on_failure: Callable[[BlockSource, SleapRtcError], None] = lambda _source, _error: None
        self.on_wrong: Callable[[BlockSource], None] = lambda _source: None
        self.again = 0
        self._asked: set[Place] = set()
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

    def ask(self, place: Place) -> None:
        """Count a block that is under way."""
        self.again += place in self._asked
        self._asked.add(place)

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
    def leaving(self) -> bool:
        return leaves(self._source)

    def was_wrong(self, file: int) -> None:
        if isinstance(self._source, Blamed):
            self._source.was_wrong(file)
        self._total.on_wrong(self._source)

    @property
    def at_once(self) -> int:
        return self._source.at_once if isinstance(self._source, Several) else 1

    async def several(
        self, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
    ) -> tuple[Content, Kind]:
        source = self._source
        if not isinstance(source, Several):
            raise TypeError(f"{source.name} gives one block after the other")
        for place in blocks:
            self._total.ask(place)
        try:
            data, way = await source.several(package, blocks, sizes)
        except SleapRtcError as error:
            self._total.on_failure(source, error)
            raise
        self._total.came[way, source.name] += len(data)
        return data, way

    @property
    def way(self) -> Kind:
        return self._source.way if isinstance(self._source, Pouring) else _WEBRTC

    def run(self, file: int) -> int:
        return self._source.run(file) if isinstance(self._source, Pouring) else 0

    async def pour(
        self, package: PackageId, file: int, first: int, sizes: Sequence[int], keep: Keep
    ) -> None:
        source, came, under_way = self._source, 0, first
        if not isinstance(source, Pouring):
            raise TypeError(f"{source.name} gives one block after the other")

        def count(number: int, content: Content) -> bool:
            nonlocal came, under_way
            came += len(content)
            under_way += 1
            return keep(number, content)

        try:
            await source.pour(package, file, first, sizes, count)
        except SleapRtcError as error:
            # Those behind it were asked for, but nothing of them has travelled.
            self._total.ask((file, under_way))
            self._total.on_failure(source, error)
            raise
        finally:
            for block in range(first, under_way):
                self._total.ask((file, block))
            if came:
                self._total.came[source.way, source.name] += came

    async def listing(self, ref: PackageRef) -> bytes:
        try:
            return await self._source.listing(ref)
        except SleapRtcError as error:
            self._total.on_failure(self._source, error)
            raise

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        source, way = self._source, _WEBRTC
        self._total.ask((file, block))
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
