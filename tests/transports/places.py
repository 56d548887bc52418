"""Where tests fetch to, and sources that they meddle with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sleap_rtc.domain import packages
from sleap_rtc.domain.ids import PackageId
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.files.durable import place_directory
from sleap_rtc.files.packing import Packed
from sleap_rtc.files.partial import folder_of
from sleap_rtc.files.staged import Staged
from sleap_rtc.transfer.choice import Kind
from sleap_rtc.transfer.progress import Progress
from sleap_rtc.transports.base import BlockSource, Sources
from sleap_rtc.transports.fetch import fetch
from sleap_rtc.transports.local import LocalSource

Meddle = Callable[[int, int], Awaitable[bytes | None]]


class Meddled:
    """A real source whose blocks go through a function first; counts what it was asked for."""

    def __init__(self, packed: Packed, meddle: Meddle | None = None, *, name: str = "peer") -> None:
        self.name = name
        self.asked: Counter[tuple[int, int]] = Counter()
        self.listings = 0
        self._meddle = meddle
        self._inner = LocalSource(packed, name=name)

    async def listing(self, ref: PackageRef) -> bytes:
        self.listings += 1
        return await self._inner.listing(ref)

    async def block(self, package: PackageId, file: int, block: int, size: int) -> bytes:
        self.asked[file, block] += 1
        other = None if self._meddle is None else await self._meddle(file, block)
        return await self._inner.block(package, file, block, size) if other is None else other

    def close(self) -> None:
        self._inner.close()


class Generous(Meddled):
    """One that gives several small blocks for one question."""

    at_once = 5

    def __init__(self, packed: Packed, meddle: Meddle | None = None, *, name: str = "peer") -> None:
        super().__init__(packed, meddle, name=name)
        self.questions: list[int] = []

    async def several(
        self, package: PackageId, places: Sequence[tuple[int, int]], sizes: Sequence[int]
    ) -> tuple[bytes, Kind]:
        self.questions.append(len(places))
        found = [
            await self.block(package, file, block, size)
            for (file, block), size in zip(places, sizes, strict=True)
        ]
        return b"".join(found), "webrtc"


class Place:
    """Where a test fetches to."""

    def __init__(self, root: Path, packed: Packed) -> None:
        self.root = root
        self.packed = packed
        self.ref = packages.ref(packed.package)
        self.incoming = root / "incoming"
        self.told: list[Progress] = []
        self._phases: dict[str, asyncio.Event] = {}

    def hear(self, told: Progress) -> None:
        self.told.append(told)
        self._phases.setdefault(told.phase, asyncio.Event()).set()

    async def until(self, phase: str) -> None:
        await self._phases.setdefault(phase, asyncio.Event()).wait()

    async def fetch(
        self, *sources: BlockSource, live: Sources | None = None, **options: object
    ) -> Staged:
        return await fetch(
            self.ref,
            sources=live or Sources(*sources),
            destination="there",
            incoming=self.incoming,
            on_progress=self.hear,
            **options,  # type: ignore[arg-type]
        )

    def check(self, staged: Staged) -> None:
        with staged:
            place_directory(staged.path, self.root / "placed")
        for entry, source in zip(self.packed.package.files, self.packed.sources, strict=True):
            content = (self.root / "placed" / entry.path).read_bytes()
            assert content == (self.root / "source" / source.path).read_bytes()
        assert list(self.incoming.iterdir()) == []

    @property
    def here(self) -> int:
        """Blocks that a kill would leave."""
        folder = folder_of(self.incoming, self.ref.id, "there")
        return (folder / "journal").read_bytes().count(b" w ")


MakePlace = Callable[[dict[str, int]], Place]
