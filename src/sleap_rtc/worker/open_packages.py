"""Packages that are kept open for the peers who fetch from them.

Making one means hashing files, in a thread; everything else happens on the event
loop, so that two peers who ask for one package at a time share it. It stays open
for as long as a peer may fetch from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sleap_rtc.domain.ids import PackageId
from sleap_rtc.errors import SourceChanged
from sleap_rtc.transports.serving import ServedPackage


class OpenPackages:
    """For one event loop.

    Args:
        granted: Whether some peer may fetch from a package now.
    """

    def __init__(self, granted: Callable[[PackageId], bool]) -> None:
        self._granted = granted
        self._open: dict[PackageId, ServedPackage] = {}
        self._making: dict[PackageId, asyncio.Task[ServedPackage]] = {}

    async def get(self, wanted: PackageId, make: Callable[[], ServedPackage]) -> ServedPackage:
        """The package with this id, to be granted before anything else is awaited.

        Args:
            wanted: Its id.
            make: Opens it, in a thread; called if it isn't open, once for all who ask meanwhile.

        Raises:
            SourceChanged: What was made is another package.
            SleapRtcError: What ``make`` raises.
        """
        self.tidy()
        served = self._open.get(wanted)
        if served is None:
            making = self._making.get(wanted)
            if making is None:
                making = self._making[wanted] = asyncio.create_task(self._make(wanted, make))
                making.add_done_callback(lambda _: self._making.pop(wanted))
            # Whoever gives up doesn't take it from the others.
            served = await asyncio.shield(making)
        return self.keep(served)

    def keep(self, served: ServedPackage) -> ServedPackage:
        """Keep a package open that is about to be granted.

        Returns:
            The same package; one that was open before, if there is one.
        """
        package = served.packed.package.id
        kept = self._open.setdefault(package, served)
        if kept is not served:
            served.close()
        return kept

    def tidy(self) -> None:
        """Close the packages that nobody may fetch from any more."""
        for package in [each for each in self._open if not self._granted(each)]:
            self._open.pop(package).close()

    async def _make(self, wanted: PackageId, make: Callable[[], ServedPackage]) -> ServedPackage:
        served = await asyncio.to_thread(make)
        if served.packed.package.id != wanted:
            served.close()
            raise SourceChanged(path=f"what package {wanted[:12]}… was made of")
        return served
