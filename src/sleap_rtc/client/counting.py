"""Counting the bytes of content that travel, whichever way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.buffers import Content
from sleap_rtc.transfer.machine import SourceId
from sleap_rtc.transports.base import BlockSource, Sources
from sleap_rtc.transports.blocks import Served


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

    Attributes:
        received: Bytes of the blocks that came.
    """

    def __init__(self, sources: Sources) -> None:
        self.received = 0
        self._theirs = sources
        self._own = Sources()
        self._counted: dict[SourceId, _Counted] = {}

    @contextmanager
    def current(self) -> Iterator[Sources]:
        """The sources to fetch from, until the block ends."""
        with self._theirs.watch(self._changed):
            self._changed()
            yield self._own

    def _changed(self) -> None:
        theirs = self._theirs.current
        for key in [key for key in self._counted if key not in theirs]:
            self._own.remove(self._counted.pop(key))
        for key, source in theirs.items():
            if key not in self._counted:
                self._counted[key] = _Counted(source, self)
                self._own.add(self._counted[key])


class _Counted:
    """One of them."""

    def __init__(self, source: BlockSource, total: CountedSources) -> None:
        self._source = source
        self._total = total

    @property
    def name(self) -> str:
        return self._source.name

    async def listing(self, ref: PackageRef) -> bytes:
        return await self._source.listing(ref)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        data = await self._source.block(package, file, block, size)
        self._total.received += len(data)
        return data
