"""The seam of a transfer: what every source of blocks can do, and the set of those in use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import msgspec

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.buffers import Content
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transfer.events import SourceId


class BlockSource(Protocol):
    """Gives blocks of packages: a peer, object storage, a folder on this machine.

    Nothing it gives is trusted: listings are checked against the package's id, blocks against the
    listing. Several calls may be under way at once, and each may be cancelled.
    """

    @property
    def name(self) -> str:
        """Names it in messages and logs."""

    async def listing(self, ref: PackageRef) -> bytes:
        """The package's listing.

        Raises:
            NetworkError: The source is gone, or doesn't answer.
            NotFound: It doesn't have the package.
            NotPermitted: Not for us.
            ProtocolError: What it sent breaks the rules.
        """

    async def block(self, package: PackageId, file: int, block: int, size: int) -> Content:
        """The content of one block.

        Args:
            package: The package.
            file: Index of the file in it.
            block: Index of the block in the file.
            size: Bytes that the block has.

        Raises:
            SourceChanged: The file isn't any more what was packed; others may have the right one.
            NetworkError: The source is gone, or doesn't answer; others are asked.
            NotFound: It doesn't have the package any more.
            NotPermitted: Not for us.
            ProtocolError: What it sent breaks the rules.
        """


@runtime_checkable
class Traced(Protocol):
    """A source that tells by which way a block came."""

    async def bring(
        self, package: PackageId, file: int, block: int, size: int
    ) -> tuple[Content, Kind]:
        """The content of one block as :meth:`BlockSource.block` gives it, and its way."""


Place = tuple[int, int]
"""Where a block is: index of the file in the package, index of the block in the file."""


@runtime_checkable
class Several(Protocol):
    """A source that gives several small blocks for one question.

    Attributes:
        at_once: So many of them at most; 1 where it gives one after the other.
    """

    @property
    def at_once(self) -> int:
        """See above."""

    async def several(
        self, package: PackageId, blocks: Sequence[Place], sizes: Sequence[int]
    ) -> tuple[Content, Kind]:
        """The content of blocks, one after the other, and the way by which it came.

        Args:
            package: The package.
            blocks: Which, up to ``at_once``.
            sizes: Bytes that each has; together up to 1 MiB.

        Raises:
            SleapRtcError: As :meth:`BlockSource.block`.
        """


Keep = Callable[[int, Content], bool]
"""Takes the content of the n-th of the blocks that were asked for, which is only lent; returns
whether more of them is wanted. Called in any thread."""


@runtime_checkable
class Pouring(Protocol):
    """A source that gives neighbouring blocks in a thread of its own, one after the other.

    Each is checked and written right there, while the processor has it in its cache, and the event
    loop hears of it afterwards.
    """

    @property
    def way(self) -> Kind:
        """By which way they come."""

    def run(self, file: int) -> int:
        """Blocks of a file that one question may be for; 0 where its blocks don't come so.

        Args:
            file: Index of the file in the package.
        """

    async def pour(
        self, package: PackageId, file: int, first: int, sizes: Sequence[int], keep: Keep
    ) -> None:
        """Have neighbouring blocks of a file kept, each once, in their order.

        Cancelled, it may give one more; returns early when no more is wanted.

        Args:
            package: The package.
            file: Index of the file in it.
            first: Index of the first of the blocks in the file.
            sizes: Bytes that each has; all but the last are whole blocks.
            keep: Given each of them.

        Raises:
            SleapRtcError: As :meth:`BlockSource.block`; what was given until then stays.
        """


@runtime_checkable
class Blamed(Protocol):
    """A source that wants to know which of its blocks were wrong."""

    def was_wrong(self, file: int) -> None:
        """Take note that a block which came from here wasn't what it should be.

        Args:
            file: Index of the file in the package.
        """


@runtime_checkable
class Leaving(Protocol):
    """A source that may leave in good order.

    Attributes:
        leaving: Whether it is to be asked for nothing more, and ends the answers that it has begun;
            what it gives no answer to fails when it is gone.
    """

    @property
    def leaving(self) -> bool:
        """See above."""


def leaves(source: BlockSource) -> bool:
    """Whether a source that is removed still ends what it has begun."""
    return isinstance(source, Leaving) and source.leaving


class Manner(msgspec.Struct, frozen=True):
    """How a source is asked; see :class:`~sleap_rtc.transfer.events.SourceAdded`.

    Attributes:
        window: Bytes that may be under way from it; None for what the transfer has for all.
        run: Bytes of neighbouring blocks that it is asked for at a time.
    """

    window: int | None = None
    run: int = 0


class Sources:
    """The sources that a transfer may use; they come and go while it runs. For one event loop.

    Args:
        sources: Those that are there from the beginning.
    """

    def __init__(self, *sources: BlockSource) -> None:
        self._ids = itertools.count(1)
        self._current: dict[SourceId, BlockSource] = {}
        self._manners: dict[SourceId, Manner] = {}
        self._watchers: list[Callable[[], None]] = []
        for source in sources:
            self.add(source)

    @property
    def current(self) -> dict[SourceId, BlockSource]:
        """The sources under ids that are never used twice."""
        return dict(self._current)

    def add(self, source: BlockSource, manner: Manner = Manner()) -> None:  # noqa: B008 - it is frozen
        """Add a source; one that was lost and is back is a new one."""
        key = SourceId(next(self._ids))
        self._current[key], self._manners[key] = source, manner
        self._changed()

    def manner(self, key: SourceId) -> Manner:
        """How the source under an id of :attr:`current` is asked."""
        return self._manners[key]

    def remove(self, source: BlockSource) -> None:
        """Remove a source, if it is there; what it was asked for is asked of others.

        One that is :class:`Leaving` may end what it has begun.
        """
        kept = {key: value for key, value in self._current.items() if value is not source}
        if len(kept) != len(self._current):
            self._current = kept
            self._manners = {key: self._manners[key] for key in kept}
            self._changed()

    @contextmanager
    def watch(self, changed: Callable[[], None]) -> Iterator[None]:
        """Call ``changed`` after every change, until the block ends."""
        self._watchers.append(changed)
        try:
            yield
        finally:
            self._watchers.remove(changed)

    def _changed(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()
